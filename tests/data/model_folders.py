"""Model folders without weights, as small as the token counter and veRL's dataset allow."""

from __future__ import annotations

import json
from pathlib import Path

_NAMES = "endoftext im_start im_end vision_start vision_end image_pad video_pad"
SPECIAL = tuple(f"<|{name}|>" for name in _NAMES.split())
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' or 'image' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEOMETRIES = {
    "qwen2_5_vl": {"patch_size": 14, "min_pixels": 3136, "max_pixels": 12845056, "processor": "Qwen2_5_VLProcessor"},
    "qwen3_vl": {"patch_size": 16, "min_pixels": 65536, "max_pixels": 16777216, "processor": "Qwen3VLProcessor"},
}


def write_model_folder(folder: Path, family: str = "qwen2_5_vl", **changed: int) -> Path:
    """Tokenizer, chat template and image processor of a family; `changed` overrides its pixel bounds."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["which organ is shown in this image of the chest, and on which side?"], trainer)
    bpe.save(str(folder / "tokenizer.json"))
    geometry = GEOMETRIES[family] | changed
    processor = geometry["processor"]
    _write(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "processor_class": processor, "additional_special_tokens": list(SPECIAL[3:]),
    })  # fmt: skip
    _write(folder / "preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": processor, "merge_size": 2,
        "temporal_patch_size": 2, "patch_size": geometry["patch_size"], "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "size": {"shortest_edge": geometry["min_pixels"], "longest_edge": geometry["max_pixels"]},
    })  # fmt: skip
    model_type = family
    _write(folder / "config.json", {"model_type": model_type})
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return folder


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
