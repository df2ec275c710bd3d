"""Configuration of the tiny Qwen2.5-VL: the real architecture, a few million parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.tiny_vlm import tokenizer as tokens

HIDDEN_SIZE = 192
VISION_HIDDEN_SIZE = 128
IMAGE_SIDE = 112
"""Pixels; 112 / (patch 14 x merge 2) = 4, so an image is 16 tokens."""

PREPROCESSOR = {
    "min_pixels": 56 * 56,
    "max_pixels": IMAGE_SIDE * IMAGE_SIDE,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}


def build_model(tokenizer: Any, seed: int) -> Any:
    """Return a randomly initialised `Qwen2_5_VLForConditionalGeneration` in fp32 for this tokenizer."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    token = tokenizer.convert_tokens_to_ids
    text_config = dict(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=2 * HIDDEN_SIZE,
        num_hidden_layers=3,
        # Head size 32, the smallest that vLLM's CPU attention takes.
        num_attention_heads=HIDDEN_SIZE // 32,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"type": "mrope", "rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e4},
        bos_token_id=token(tokens.END_OF_TEXT),
        eos_token_id=token(tokens.TURN_END),
        pad_token_id=token(tokens.END_OF_TEXT),
    )
    vision_config = dict(
        depth=2,
        hidden_size=VISION_HIDDEN_SIZE,
        intermediate_size=2 * VISION_HIDDEN_SIZE,
        num_heads=VISION_HIDDEN_SIZE // 32,
        out_hidden_size=HIDDEN_SIZE,
        patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
        window_size=IMAGE_SIDE,
        fullatt_block_indexes=[1],
    )
    config = Qwen2_5_VLConfig(
        text_config=text_config,
        vision_config=vision_config,
        image_token_id=token(tokens.IMAGE_PAD),
        video_token_id=token(tokens.VIDEO_PAD),
        vision_start_token_id=token(tokens.VISION_START),
        vision_end_token_id=token(tokens.VISION_END),
    )
    config.tie_word_embeddings = False
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    model.generation_config.eos_token_id = token(tokens.TURN_END)
    model.generation_config.pad_token_id = token(tokens.END_OF_TEXT)
    return model


def save(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write an ordinary Hugging Face folder: weights, tokenizer, processor and chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(tokens.CHAT_TEMPLATE, encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2), encoding="utf-8")
    model.save_pretrained(folder)
