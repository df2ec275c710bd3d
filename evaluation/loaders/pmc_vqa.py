"""PMC-VQA's checked test rows: with the four options, or ("hard") without them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from data_prep.records import Refusal, Unfit
from data_prep.sources.base import text
from data_prep.sources.hub import packed_image
from evaluation.item import Item
from evaluation.loaders.rows import Row, choice_item, image_bytes, task_items
from evaluation.task import Task

_PREFIX: Final = re.compile(r"^\s*[A-D]\s*[:.)]\s*")


def items(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """`test_clean.csv`; the option `choices: false` makes an open question of each row."""
    columns = ("Figure_path", "Question", "Choice A", "Choice B")
    return task_items(task, local, ("test_clean.csv", f"{task.split}*.csv"), columns, _item)


def _item(task: Task, row: Row) -> Item:
    options = {letter: _PREFIX.sub("", text(row.values, f"Choice {letter}", "")).strip() for letter in "ABCD"}
    stated = text(row.values, "Answer_label", "") or text(row.values, "Answer", "")
    letter = stated if stated in options else _letter_of_text(stated, options)
    images = image_bytes(
        [packed_image(row.table.parent, ("images", "figures", "images_2"), text(row.values, "Figure_path"))]
    )
    item = choice_item(task, "", text(row.values, "Question"), options, letter, images=images)
    return item if task.options.get("choices", True) else replace(item, kind="open", choices=(), letter="")


def _letter_of_text(stated: str, options: dict[str, str]) -> str:
    named = [letter for letter, option in options.items() if option == _PREFIX.sub("", stated).strip()]
    if len(named) != 1:
        raise Unfit("no_answer", f"{stated!r} is none of the choices"[:120])
    return named[0]
