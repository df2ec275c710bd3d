"""Rows of `medix score --jsonl`: checked, and turned into scoring inputs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix.errors import DataError
from medix.modality import MODALITIES, is_modality
from reward_fns.contracts import ScoringInput

_KEYS = (
    *("response", "answer", "question", "modality", "aliases", "answer_kind", "sample_id", "id"),
    *("assume_judge", "assume_similarity"),
)
_YES_NO = {"yes": True, "no": False, True: True, False: False}


@dataclass(frozen=True)
class Row:
    """A response to score, and the findings its author wants assumed (None: to be asked of the scorers)."""

    item: ScoringInput
    assume_judge: bool | None = None
    assume_similarity: float | None = None


def read_rows(path: Path, defaults: Mapping[str, Any] | None = None) -> Iterator[Row]:
    """The rows of a JSONL file one by one, blank lines left out; `defaults` are the fields that a row does not state.

    Raises:
        DataError: the file or a line is wrong (the message names the line), or there is no row in it.
    """
    found = 0
    try:
        with path.open(encoding="utf-8-sig") as lines:  # some editors start a file with a byte order mark
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    found += 1
                    yield _parse(line, defaults or {}, f"{path}:{number}", f"line {number}")
        if not found:
            raise DataError(f"at least one row in {path}", "none", "write one JSON object a line")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"a readable JSONL file at {path}", f"{type(error).__name__}: {error}", "correct it") from error


def _parse(line: str, defaults: Mapping[str, Any], where: str, name: str) -> Row:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise DataError(f"JSON on line {where}", str(error), "write one JSON object a line") from error
    if not isinstance(data, dict):
        raise DataError(f"a JSON object on line {where}", type(data).__name__, "write one JSON object a line")
    return make_row({"id": name, **defaults, **data}, where)


def make_row(data: Mapping[str, Any], where: str) -> Row:
    """A row from its fields `response`, `answer` and, where given, the others. What is none of ours is left alone.

    Raises:
        DataError: a field is missing, of the wrong type, or misspelt.
    """
    # `question_id` beside `question`, or `idx`, is no slip: only what the row does not state is looked for.
    missing = [key for key in _KEYS if key != "id" and data.get(key) is None]
    for key in data.keys() - set(_KEYS):
        near = difflib.get_close_matches(key, missing, n=1, cutoff=0.75)
        if near:
            raise DataError(f"{near[0]!r} on line {where}", repr(key), f"did you mean {near[0]!r}?")
    aliases = data.get("aliases") or ()
    if isinstance(aliases, str) or not all(isinstance(alias, str) for alias in aliases):
        raise DataError(f"a list of texts in 'aliases' on line {where}", repr(aliases), 'write ["..."]')
    answer = _text(data, "answer", where)
    if not answer.strip():
        raise DataError(f"a non-empty 'answer' on line {where}", repr(answer), "fill it in")
    item = ScoringInput(
        response=_text(data, "response", where),
        reference=answer,
        question=_text(data, "question", where, ""),
        modality=_modality(data.get("modality"), where),
        aliases=tuple(aliases),
        answer_kind=_text(data, "answer_kind", where, "open"),
        sample_id=str(data.get("sample_id") or data.get("id") or "response"),
    )
    return Row(item, _assumed_verdict(data.get("assume_judge"), where), _cosine(data.get("assume_similarity"), where))


def _text(data: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = data.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise DataError(f"a text in {name!r} on line {where}", repr(value), f"fill in {name!r}")
    return value


def _modality(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    tag = str(value).strip().removeprefix("<").removesuffix(">").upper()
    if not is_modality(tag):
        raise DataError(f"a modality out of {', '.join(MODALITIES)} on line {where}", repr(value), "correct 'modality'")
    return tag


def _assumed_verdict(value: Any, where: str) -> bool | None:
    key = value.strip().lower() if isinstance(value, str) else value
    if key is None or (isinstance(key, (bool, str)) and key in _YES_NO):
        return None if key is None else _YES_NO[key]
    raise DataError(f"'assume_judge' yes or no on line {where}", repr(value), 'write "yes" or "no"')


def _cosine(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1 <= value <= 1:
        raise DataError(f"'assume_similarity' in [-1, 1] on line {where}", repr(value), "write, e.g., 0.83")
    return float(value)
