"""Small sets and model folders that the data tests write for themselves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

_NAMES = "endoftext im_start im_end vision_start vision_end image_pad video_pad"
SPECIAL = [f"<|{name}|>" for name in _NAMES.split()]
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' or 'image' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    "qwen3_vl": {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}},
}
PROCESSORS = {"qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}


def _write_model_folder(folder: Path, family: str = "qwen2_5_vl") -> Path:
    """Tokenizer, chat template and image processor of a family; no weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["which organ is shown in this image of the chest, and on which side?"], trainer)
    bpe.save(str(folder / "tokenizer.json"))
    names = {"processor_class": PROCESSORS[family]}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    image = {"image_processor_type": "Qwen2VLImageProcessor", "merge_size": 2, "temporal_patch_size": 2}
    scale = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    files = {
        "tokenizer_config.json": tokenizer | names | {"additional_special_tokens": SPECIAL[3:]},
        "preprocessor_config.json": image | scale | names | FAMILIES[family],
        "config.json": {"model_type": family},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = _write_model_folder(tmp_path_factory.mktemp("model") / family, family)
        return made[family]

    return folder


def _picture(seed: int = 0, size: tuple[int, int] = (48, 40), form: str = "PNG", mode: str = "RGB") -> bytes:
    """Smooth random blobs, different for each seed; survives recompression as photographs do."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    return _picture


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as one JSONL table, images beside it; a row's `picture` (bytes) becomes an image file."""

    def write(rows: Iterable[dict[str, Any]], name: str = "train", folder: str = "set") -> Path:
        root = tmp_path / folder
        (root / "images").mkdir(parents=True, exist_ok=True)
        with (root / f"{name}.jsonl").open("w", encoding="utf-8") as table:
            for number, row in enumerate(rows):
                row = {
                    "id": f"{name}{number}",
                    "question": f"What is {name} {number}?",
                    "answer": f"thing {number}",
                } | row
                if "picture" in row:
                    suffix = "jpg" if row["picture"][:2] == b"\xff\xd8" else "png"
                    relative = f"images/{name}{number}.{suffix}"
                    (root / relative).write_bytes(row.pop("picture"))
                    row["images"] = [relative]
                table.write(json.dumps(row) + "\n")
        return root

    return write


@pytest.fixture
def read_quarantine() -> Callable[[Path], dict[str, str]]:
    """Row id -> reason."""

    def read(out: Path) -> dict[str, str]:
        lines = (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
        return {row["id"]: row["reason"] for row in map(json.loads, lines)}

    return read
