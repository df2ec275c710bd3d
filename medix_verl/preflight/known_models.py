"""The part of `config.json` that fixes a size, of the models the recipes name: so that their memory can be reckoned
before they are downloaded. A model folder, or the hub client's cache, comes before this table.
"""

from __future__ import annotations

from typing import Any, Final


def _qwen2_5_vl(tied: bool, hidden: int, layers: int, inner: int, heads: int, kv_heads: int, vocab: int) -> Any:
    return {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": tied,
        "text_config": _text("qwen2_5_vl_text", hidden, layers, heads, kv_heads, vocab) | {"intermediate_size": inner},
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": hidden, "patch_size": 14,
        },
    }  # fmt: skip


def _qwen3_vl(tied: bool, text: dict[str, Any], depth: int = 27, width: int = 1152, inner: int = 4304) -> Any:
    return {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": tied,
        "text_config": {**text, "head_dim": 128},
        "vision_config": {
            "depth": depth, "hidden_size": width, "intermediate_size": inner, "out_hidden_size": text["hidden_size"],
            "patch_size": 16, "num_position_embeddings": 2304, "deepstack_visual_indexes": [1, 2, 3],
        },
    }  # fmt: skip


def _text(kind: str, hidden: int, layers: int, heads: int, kv_heads: int, vocab: int = 151936) -> dict[str, Any]:
    return {
        "model_type": kind, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocab,
    }  # fmt: skip


_MIXTURE = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
_30B = _qwen3_vl(False, _text("qwen3_vl_moe_text", 2048, 48, 32, 4) | _MIXTURE)

KNOWN: Final[dict[str, dict[str, Any]]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5_vl(True, 2048, 36, 11008, 16, 2, 151936),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2_5_vl(False, 3584, 28, 18944, 28, 4, 152064),
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3_vl(
        True, _text("qwen3_vl_text", 2048, 28, 16, 8) | {"intermediate_size": 6144}, 24, 1024, 4096
    ),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3_vl(
        False, _text("qwen3_vl_text", 4096, 36, 32, 8) | {"intermediate_size": 12288}
    ),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": _30B,
    "Qwen/Qwen3-VL-30B-A3B-Thinking": _30B,
    "Qwen/Qwen3-4B-Instruct-2507": _text("qwen3", 2560, 36, 32, 8)
    | {"intermediate_size": 9728, "head_dim": 128, "tie_word_embeddings": True},
}
"""Hub name -> configuration. The number of deep-stack mergers counts, their positions do not."""
