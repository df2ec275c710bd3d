"""MIMIC-CXR report summarisation and generation, from a local table only: the data needs its owner's permission."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.records import Refusal
from data_prep.sources.base import image_refs, text
from evaluation.item import Item
from evaluation.loaders.rows import Row, image_bytes, task_items
from evaluation.task import Task

QUESTIONS = {
    "summarise": "Write a short summary of this radiology report: its impression in a few sentences.",
    "generate": "Write a detailed radiology report of this image: findings, then impression.",
}


def items(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """`*.jsonl`, `*.csv` or `*.parquet` with `id`, `findings`, `impression`, and `image` (a path) for generation.

    One patient's studies are not independent: `subject_id`, where there is one, names the cluster.
    """
    patterns = ("*.jsonl", "*.csv", "*.parquet")
    return task_items(task, local, patterns, ("id", "findings", "impression"), _item)


def _item(task: Task, row: Row) -> Item:
    values = row.values
    findings, impression = text(values, "findings"), text(values, "impression")
    summarise = task.options["ask"] == "summarise"
    return Item(
        task=task.name,
        id=text(values, "id"),
        question=QUESTIONS[task.options["ask"]],
        reference=impression if summarise else f"Findings: {findings}\nImpression: {impression}",
        kind="report",
        images=() if summarise else image_bytes(image_refs(values["image"], row.table.parent)),
        passage=findings if summarise else "",
        modality=None if summarise else "X_RAY",
        group=text(values, "subject_id", ""),
    )
