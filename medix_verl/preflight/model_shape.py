"""A model's size, from its `config.json` alone: parameters, and what activations and the KV cache depend on.

Knows the Qwen2.5-VL and Qwen3-VL families, dense and mixture-of-experts, and plain Qwen2/Qwen3/Llama-like language
models (judges). The counts are those of transformers' own classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.known_models import KNOWN


@dataclass(frozen=True)
class ModelShape:
    """All counts of elements, not of bytes."""

    parameters: int
    vision_parameters: int
    layer_parameters: int
    """Of one decoder layer, which FSDP gathers as a whole."""
    adapted_width: int
    """Sum of input and output widths of one decoder layer's linear maps: a LoRA of rank r adds r times that."""
    layers: int
    hidden: int
    feed_forward: int
    """Width that one token passes through: all chosen experts together in a mixture."""
    vocabulary: int
    vision_width: int
    """Sum of the widths of the vision tower's blocks; 0 for a language model."""
    kv_width: int
    """Key and value elements that one token leaves in one layer."""
    kv_heads: int

    def lora_parameters(self, rank: int) -> int:
        """Adapters on every linear map of the decoder (`target_modules: all-linear`)."""
        return rank * self.adapted_width * self.layers


def shape_of(path: str) -> ModelShape | None:
    """The shape of the model in a folder, or of a hub name in the local cache or in `known_models`; None otherwise.

    Raises:
        ConfigError: a `config.json` that is not one, or of a family that is not known.
    """
    config = read_config(path)
    return None if config is None else shape_from(config, path)


def read_config(path: str) -> dict[str, Any] | None:
    file = Path(path) / "config.json"
    if not file.is_file():
        cached = _cached_config(path)
        if cached is None:
            return KNOWN.get(path)
        file = cached
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("a readable config.json", f"{file}: {error}", "build or download the model again") from error
    return config if isinstance(config, dict) else {}


def _cached_config(name: str) -> Path | None:
    """Of a hub name, in the hub client's own cache; no connection is made."""
    if name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found) if isinstance(found, str) else None


def shape_from(config: Mapping[str, Any], where: str) -> ModelShape:
    """The shape that a configuration describes; `where` is for messages."""
    text = config.get("text_config") or config
    try:
        layer, width, feed_forward = _decoder_layer(text)
        hidden, layers, vocabulary = text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]
        tower = config.get("vision_config") or {}
        tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
        vision = _vision(config["vision_config"], config["model_type"]) if "vision_config" in config else 0
        language = layers * layer + hidden + vocabulary * hidden * (1 if tied else 2)
        kv_heads = text.get("num_key_value_heads") or text["num_attention_heads"]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            "a config.json of the Qwen2.5-VL or Qwen3-VL families, or of a plain language model",
            f"{where} without {error}",
            "judge the memory by hand",
        ) from error
    return ModelShape(
        parameters=language + vision,
        vision_parameters=vision,
        layer_parameters=layer,
        adapted_width=width,
        layers=layers,
        hidden=hidden,
        feed_forward=feed_forward,
        vocabulary=vocabulary,
        vision_width=tower.get("depth", 0) * tower.get("hidden_size", 0),
        kv_width=2 * kv_heads * _head_dim(text),
        kv_heads=kv_heads,
    )


def _head_dim(text: Mapping[str, Any]) -> int:
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def _decoder_layer(text: Mapping[str, Any]) -> tuple[int, int, int]:
    """(parameters, widths of its linear maps, feed-forward width of one token)."""
    hidden, dim = text["hidden_size"], _head_dim(text)
    query = text["num_attention_heads"] * dim
    keys = (text.get("num_key_value_heads") or text["num_attention_heads"]) * dim
    attention = 2 * hidden * query + 2 * hidden * keys
    kind = str(text.get("model_type", ""))
    if kind.startswith("qwen2"):
        attention += query + 2 * keys  # biases
    elif kind.startswith("qwen3"):
        attention += 2 * dim  # norms of queries and keys
    experts = int(text.get("num_experts") or text.get("num_local_experts") or 0)
    inner = text["moe_intermediate_size"] if experts else text["intermediate_size"]
    feed_forward = 3 * hidden * inner * max(experts, 1) + hidden * experts
    used = inner * (text["num_experts_per_tok"] if experts else 1)
    width = 2 * (hidden + query) + 2 * (hidden + keys) + 3 * (hidden + inner) * max(experts, 1)
    return attention + feed_forward + 2 * hidden, width, used


def _vision(vision: Mapping[str, Any], kind: str) -> int:
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    merged = width * vision.get("spatial_merge_size", 2) ** 2
    out = vision["out_hidden_size"]
    patch = math.prod((vision.get("in_channels", 3), vision.get("temporal_patch_size", 2), vision["patch_size"] ** 2))
    attention = 4 * (width * width + width)
    merger = merged * merged + merged + merged * out + out
    if kind.startswith("qwen2_5_vl"):
        block = attention + 2 * width + 3 * width * inner + 2 * inner + width
        return int(patch * width + vision["depth"] * block + merger + width)
    block = attention + 4 * width + 2 * width * inner + inner + width
    deep = len(vision["deepstack_visual_indexes"]) * (merger + 2 * merged)
    positions = vision["num_position_embeddings"] * width
    return int(patch * width + width + positions + vision["depth"] * block + merger + 2 * width + deep)
