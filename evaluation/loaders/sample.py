"""The sample set's own held-out rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.sources.sample import SAMPLE_DATA, read_sample_set
from evaluation.item import Item
from evaluation.task import Task


def items(task: Task, local: Path | None) -> Iterator[Item]:
    """One item a row. Questions about the same picture share its cluster."""
    for sample in read_sample_set(task.split, local or SAMPLE_DATA):
        yield Item(
            task=task.name,
            id=sample.id,
            question=sample.question,
            reference=sample.reference,
            images=sample.images,
            modality=sample.modality,
            aliases=sample.aliases,
        )
