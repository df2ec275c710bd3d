"""Labelled pairs: a reference, a candidate, and whether the candidate says the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import DataError

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
    """Pairs of a JSON-lines or CSV file: `question` (may be empty), `reference`, `candidate`, `right`; optional `kind`
    and `group`. A user's human ratings have this form.

    Raises:
        DataError: a line lacks a field, or `right` is neither yes nor no.
    """
    if not path.is_file():
        raise DataError("a file of labelled pairs", f"none at {path}", "see docs/evaluation.md for its columns")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: Iterator[Mapping[str, Any]] = (
            iter(csv.DictReader(file)) if path.suffix == ".csv" else (json.loads(line) for line in file if line.strip())
        )
        number = 0
        try:
            for number, row in enumerate(rows, 1):
                yield _pair(row, number)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError("a labelled pair", f"{path.name}, pair {number or 1}: {error!r}", "correct it") from error


def _pair(row: Mapping[str, Any], number: int) -> Pair:
    stated = str(row["right"]).strip().lower()
    reference, candidate = str(row["reference"]).strip(), str(row["candidate"]).strip()
    if stated not in _TRUE | _FALSE or not reference or not candidate:
        raise DataError("'right' as yes or no, and two texts", f"pair {number}: {dict(row)!r}"[:200], "correct it")
    return Pair(
        str(row.get("question") or ""),
        reference,
        candidate,
        stated in _TRUE,
        str(row.get("kind") or "unnamed"),
        str(row.get("group") or number),
    )
