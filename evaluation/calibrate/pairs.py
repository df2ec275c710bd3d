"""Labelled pairs: a reference, a candidate, and whether the candidate says the same."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import DataError
from medix.jsonl import JsonLines

OURS: Final = Path(__file__).resolve().parent / "pairs.jsonl"
"""Written by hand for this project; small, and meant for the kinds of error that matter most."""
_TRUE, _FALSE = {"1", "true", "yes", "right", "correct"}, {"0", "false", "no", "wrong", "incorrect"}


@dataclass(frozen=True)
class Pair:
    """`kind` is the kind of difference, e.g. negation or synonym; `group` names pairs that are not independent."""

    question: str
    reference: str
    candidate: str
    right: bool
    kind: str
    group: str


def read_pairs(path: Path = OURS) -> Iterator[Pair]:
    """Read a JSON-lines or CSV file: `question` (may be empty), `reference`, `candidate`, `right`; optional `kind`
    and `group`. A user's human ratings have this form.

    Raises:
        DataError: a line can not be read or lacks a field, or `right` is neither yes nor no.
    """
    if not path.is_file():
        raise DataError(f"There is no file of labelled pairs at {path}.", "docs/evaluation.md names its columns.")
    if path.suffix != ".csv":
        lines = JsonLines(path)
        for number, row in lines:
            yield _pair(row, path, number)
        if lines.note():
            raise DataError(f"{path} is damaged: {lines.note()}.", "Correct the file.")
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, strict=True), 1):
                yield _pair(row, path, number)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can not be read as CSV: {error}.", "Correct the file.") from error


def _pair(row: Mapping[str, Any], path: Path, number: int) -> Pair:
    def text(name: str) -> str:
        value = row.get(name)
        return "" if value is None else str(value).strip()

    stated = text("right").lower()
    if stated not in _TRUE | _FALSE or not text("reference") or not text("candidate"):
        raise DataError(
            f"{path.name}, pair {number} is no labelled pair: {dict(row)!r}"[:300],
            "Give it a reference, a candidate, and `right` as yes or no.",
        )
    kind, group = text("kind") or "unnamed", text("group") or str(number)
    return Pair(text("question"), text("reference"), text("candidate"), stated in _TRUE, kind, group)
