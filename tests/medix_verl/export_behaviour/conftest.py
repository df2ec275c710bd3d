"""A base model's folder and a run with a checkpoint of it: side files of the real form, no weights to speak of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix_verl.export.contract import Checkpoint

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
IMAGES = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 3136,
    "max_pixels": 12544,
    "patch_size": 14,
    "merge_size": 2,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
ROWS = 12
"""Rows of the embedding: four more than there are tokens, as Qwen pads."""


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)


def tokenizer() -> dict[str, Any]:
    return {
        "added_tokens": [{"id": number, "content": token, "special": True} for number, token in enumerate(SPECIAL)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "vocab": {"a": 6, "b": 7}, "merges": [["a", "b"]]},
    }


def config() -> dict[str, Any]:
    text = {
        "vocab_size": ROWS, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "num_attention_heads": 1,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_parameters": {"mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "patch_size": 14, "spatial_merge_size": 2,
    }  # fmt: skip
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "image_token_id": 5,
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
        "text_config": text,
        "vision_config": vision,
    }


def write_side_files(folder: Path) -> None:
    """As transformers 5 writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config())
    write_json(folder / "tokenizer.json", tokenizer())
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    write_json(folder / "generation_config.json", {"eos_token_id": [2, 0]})
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    size = {"shortest_edge": IMAGES["min_pixels"], "longest_edge": IMAGES["max_pixels"]}
    newer = {name: value for name, value in IMAGES.items() if not name.endswith("_pixels")} | {"size": size}
    write_json(folder / "processor_config.json", {"image_processor": newer})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """As transformers 4 wrote it: an image processor in its own file, the template inside JSON."""
    folder = tmp_path / "base"
    write_side_files(folder)
    (folder / "processor_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    write_json(folder / "preprocessor_config.json", IMAGES)
    write_json(folder / "chat_template.json", {"chat_template": TEMPLATE})
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, base: Path) -> Checkpoint:
    """Step 7 of a run whose config.yaml names the base model."""
    run = tmp_path / "runs" / "first"
    actor = run / "checkpoints" / "global_step_7" / "actor"
    write_side_files(actor / "huggingface")
    (run / "config.yaml").write_text(json.dumps({"actor_rollout_ref": {"model": {"path": str(base)}}}))
    return Checkpoint(actor, 7, run, 1, actor / "huggingface")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the weights half has just written: an embedding and config.json."""
    import numpy as np
    from safetensors.numpy import save_file

    target = tmp_path / "out.part-1"
    target.mkdir()
    save_file(
        {"model.language_model.embed_tokens.weight": np.zeros((ROWS, 8), "float32")}, target / "model.safetensors"
    )
    write_json(target / "config.json", config())
    return target
