"""Greedy answers of an exported folder to a prepared validation split, by transformers."""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any

from evaluation.prompting import content_parts


def greedy_answers(
    folder: Path, parquet: Path, samples: Collection[str], max_new_tokens: int, batch_size: int = 32
) -> dict[str, str]:
    """Sample id -> answer, of the rows with these ids."""
    import pyarrow.parquet as pq
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    rows = [row for row in pq.read_table(parquet).to_pylist() if row["extra_info"]["sample_id"] in samples]
    answers = {}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        inputs = processor(
            text=[prompt(processor, row) for row in batch],
            images=[picture(image) for row in batch for image in row["images"]] or None,
            return_tensors="pt",
            padding=True,
        )
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        output = model.generate(**inputs, **greedy, max_new_tokens=max_new_tokens)
        texts = processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers |= {row["extra_info"]["sample_id"]: text for row, text in zip(batch, texts, strict=True)}
    return answers


def prompt(processor: Any, row: dict[str, Any]) -> str:
    messages = [message | {"content": content_parts(message["content"])} for message in row["prompt"]]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def picture(image: dict[str, bytes]) -> Any:
    from PIL import Image

    return Image.open(BytesIO(image["bytes"])).convert("RGB")
