"""MMMU's medical subjects, validation split: up to seven images, referred to as `<image 1>` in the question."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from data_prep.records import Refusal, Unfit
from data_prep.sources.base import image_refs, text
from evaluation.item import LETTERS, Item
from evaluation.loaders.rows import Row, choice_item, image_bytes, task_items
from evaluation.task import Task

MOST_IMAGES = 7


def items(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """`SUBJECT/validation-*.parquet`; images go first, in order, and are named by their number in the text."""
    patterns = (f"{task.config}/{task.split}*.parquet", f"{task.split}*.parquet")
    return task_items(task, local, patterns, ("id", "question", "options", "answer", "question_type"), _item)


def _item(task: Task, row: Row) -> Item:
    values = row.values
    pictures = [values.get(f"image_{number}") for number in range(1, MOST_IMAGES + 1)]
    images = image_bytes([ref for picture in pictures if picture for ref in image_refs(picture, row.table.parent)])
    row_id, question = text(values, "id"), text(values, "question")
    if text(values, "question_type") == "multiple-choice":
        options = _literal_list(values["options"])
        return choice_item(
            task, row_id, question, dict(zip(LETTERS, options, strict=False)), text(values, "answer"), images=images
        )
    answers = _literal_list(values["answer"]) if str(values["answer"]).startswith("[") else [text(values, "answer")]
    return Item(task.name, row_id, question, answers[0], images=images, aliases=tuple(answers[1:]))


def _literal_list(value: object) -> list[str]:
    """A list, or the text of a Python list, which is how this set writes them."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise Unfit("bad_field", f"{value!r} is no list"[:120]) from error
    if not isinstance(value, list):
        raise Unfit("bad_field", f"a {type(value).__name__}, not a list")
    return [str(item) for item in value]
