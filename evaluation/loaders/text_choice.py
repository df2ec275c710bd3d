"""Text-only multiple choice: MMLU's medical subjects, MedMCQA, MedQA, the USMLE self-assessment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.records import Refusal, Unfit
from data_prep.sources.base import text
from evaluation.item import LETTERS, Item
from evaluation.loaders.rows import Row, choice_item, local_copy, task_items
from evaluation.task import Task
from medix.errors import DataError


def mmlu(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """`SUBJECT/test-*.parquet`; `answer` is a place from 0."""
    patterns = (f"{task.config}/{task.split}*.parquet", f"{task.split}*.parquet")
    return task_items(task, local, patterns, ("question", "choices", "answer"), _mmlu_item)


def _mmlu_item(task: Task, row: Row) -> Item:
    options = dict(zip(LETTERS, row.values["choices"], strict=False))
    return choice_item(task, "", text(row.values, "question"), options, _letter_at(row.values["answer"]))


def medmcqa(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """`data/validation-*.parquet`; `cop` is a place from 0, -1 where the answer is withheld."""
    columns = ("id", "question", "opa", "opb", "opc", "opd", "cop")
    patterns = (f"data/{task.split}*.parquet", f"{task.split}*.parquet")
    return task_items(task, local, patterns, columns, _medmcqa_item)


def _medmcqa_item(task: Task, row: Row) -> Item:
    options = {letter: row.values[f"op{letter.lower()}"] for letter in "ABCD"}
    return choice_item(
        task, text(row.values, "id"), text(row.values, "question"), options, _letter_at(row.values["cop"])
    )


def medqa(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """JSON lines; `options` by letter, `answer_idx` is the right letter."""
    patterns = (f"*{task.split}*.jsonl",)
    return task_items(task, local, patterns, ("question", "options", "answer_idx"), _medqa_item)


def _medqa_item(task: Task, row: Row) -> Item:
    return choice_item(
        task, "", text(row.values, "question"), dict(row.values["options"]), text(row.values, "answer_idx")
    )


def usmle(task: Task, local: Path | None) -> Iterator[Item | Refusal]:
    """`step1..3.json` with `stepN_solutions.json`; questions that need a picture are left out.

    `question_with_images.json` lists those by their place in the step, from 0.
    """
    root = local_copy(task, local, ("*.json",))
    pictured = _read_json(root / "question_with_images.json")
    for step in ("step1", "step2", "step3"):
        questions, solutions = _read_json(root / f"{step}.json"), _read_json(root / f"{step}_solutions.json")
        for place, row in enumerate(questions):
            if place in pictured.get(step, ()):
                continue
            try:
                yield _usmle_item(task, step, row, solutions)
            except Unfit as unfit:
                yield Refusal(task.name, f"{step}:{place}", unfit.reason, unfit.detail)
            except (KeyError, TypeError, AttributeError) as error:
                yield Refusal(task.name, f"{step}:{place}", "bad_field", f"{type(error).__name__}: {error}"[:160])


def _usmle_item(task: Task, step: str, row: dict[str, Any], solutions: dict[str, str]) -> Item:
    number = str(row["no"])
    if number not in solutions:
        raise Unfit("no_answer", f"no solution {number}")
    options = {letter.strip().upper()[:1]: option for letter, option in row["options"].items()}
    letter = solutions[number].strip().upper()[:1]
    return choice_item(task, f"{step}-{number}", text(row, "question"), options, letter)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"the table {path.name}", f"{type(error).__name__}: {error}", "fetch it anew") from error


def _letter_at(place: Any) -> str:
    """Raises `Unfit` where the place is none, which is how withheld answers are marked."""
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(LETTERS):
        raise Unfit("no_answer", f"the answer is {place!r}"[:60])
    return LETTERS[place]
