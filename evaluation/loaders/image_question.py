"""One image, one question, one short answer a row: VQA-RAD, PathVQA, and SLAKE's English test rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_prep.records import Refusal
from data_prep.sources.base import image_refs, text
from data_prep.sources.hub import packed_image
from evaluation.item import Item, ItemKind
from evaluation.loaders.rows import Row, image_bytes, task_items
from evaluation.task import Task

SLAKE_MODALITIES: Final = {"ct": "CT_SCAN", "mri": "MRI_SCAN", "x-ray": "X_RAY", "xray": "X_RAY"}


def items(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """Parquet with embedded images. Closed is what is answered by yes or no: these sets state no type."""
    patterns = (f"data/{task.split}*.parquet", f"{task.split}*.parquet")
    return task_items(task, local, patterns, ("image", "question", "answer"), _item)


def _item(task: Task, row: Row) -> Item:
    answer = text(row.values, "answer")
    return Item(
        task=task.name,
        id="",
        question=text(row.values, "question"),
        reference=answer,
        kind="closed" if answer.lower().rstrip(".") in ("yes", "no") else "open",
        images=image_bytes(image_refs(row.values["image"], row.table.parent)),
    )


def slake(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """`test.json` with images in `imgs/` or `imgs.zip`; the Chinese rows are left out."""
    columns = ("img_name", "question", "answer", "q_lang", "answer_type")
    return task_items(task, local, (f"{task.split}.json",), columns, _slake_item)


def _slake_item(task: Task, row: Row) -> Item | None:
    if text(row.values, "q_lang") != "en":
        return None
    kind: ItemKind = "closed" if text(row.values, "answer_type").upper() == "CLOSED" else "open"
    name = text(row.values, "img_name")
    return Item(
        task=task.name,
        id=text(row.values, "qid", ""),
        question=text(row.values, "question"),
        reference=text(row.values, "answer"),
        kind=kind,
        images=image_bytes([packed_image(row.table.parent, ("imgs",), name)]),
        modality=SLAKE_MODALITIES.get(text(row.values, "modality", "").lower()),
    )
