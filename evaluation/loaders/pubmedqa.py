"""PubMedQA, labelled part: an abstract, a research question, and yes, no or maybe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.records import Refusal, Unfit
from data_prep.sources.base import text
from evaluation.item import LETTERS, Item
from evaluation.loaders.rows import Row, choice_item, task_items
from evaluation.task import Task
from medix.errors import ConfigError


def items(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """All sections of the abstract are shown, under their own headings.

    Raises:
        ConfigError: the task's labels are not the three texts (YAML reads a bare yes or no as a boolean).
    """
    if task.labels != ("yes", "no", "maybe"):
        raise ConfigError("labels 'yes', 'no', 'maybe'", repr(task.labels), "quote them in the task's file")
    patterns = ("pqa_labeled/*.parquet", "*.parquet", "*.jsonl")
    return task_items(task, local, patterns, ("pubid", "question", "context", "final_decision"), _item)


def _item(task: Task, row: Row) -> Item:
    decision = text(row.values, "final_decision").lower()
    if decision not in task.labels:
        raise Unfit("no_answer", f"final_decision is {decision!r}"[:60])
    context = row.values["context"]
    headings = context.get("labels") or [""] * len(context["contexts"])
    sections = [
        f"{heading}: {section.strip()}" if heading else section.strip()
        for heading, section in zip(headings, context["contexts"], strict=True)
    ]
    options = dict(zip(LETTERS, task.labels, strict=False))
    letter = LETTERS[task.labels.index(decision)]
    return choice_item(
        task, text(row.values, "pubid"), text(row.values, "question"), options, letter, passage="\n".join(sections)
    )
