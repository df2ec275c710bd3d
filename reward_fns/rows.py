"""Rows of `medix score`: read from a file, checked, and turned into scoring inputs with their recorded findings."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from medix.errors import ConfigError, DataError
from medix.files import open_inside
from medix.jsonl import JsonLines
from medix.modality import MODALITIES, is_modality
from medix.options import read_options
from medix.same_answer import answer_key
from medix.sample import NOT_APPLICABLE
from reward_fns.component import ScoringInput
from reward_fns.scorers.types import JudgeRequest, Scorers, Similarity, Verdict

_Cosine = Annotated[float, Field(ge=-1, le=1)]


@dataclass(frozen=True)
class AssumedScorers:
    """Implements `Scorers` with given findings; what is None is asked of `otherwise`.

    Raises:
        ConfigError: on a question that neither answers.
    """

    judge_says: bool | None = None
    cosine: float | None = None
    otherwise: Scorers | None = None
    has_judge: bool = True
    """Whether `otherwise` has a judge to ask."""

    async def judge(self, request: JudgeRequest) -> Verdict:
        if self.judge_says is not None and request.template is None:
            return Verdict(self.judge_says, raw="assumed", attempts=0)
        if self.otherwise is not None and self.has_judge:
            return await self.otherwise.judge(request)
        raise ConfigError(
            "An answer that is not the reference itself needs a judge, and none is named.",
            'Give --judge-url, or "assume_judge": "yes" or "no" in the row.',
        )

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        if self.cosine is not None:
            return Similarity(self.cosine)
        if self.otherwise is not None:
            return await self.otherwise.similarity(reference, candidate)
        raise ConfigError(
            "An answer that is not the reference itself needs an embedder, and none is named.",
            'Give --embedder, or "assume_similarity": 0.83 in the row.',
        )


@dataclass(frozen=True)
class Row:
    """A response to score, and the findings to assume for it (None: to be asked of the scorers)."""

    item: ScoringInput
    assume_judge: bool | None = None
    assume_similarity: float | None = None
    group: str | None = None
    """The group of a run's rollouts that the response was compared in."""
    run_score: float | None = None
    """The score that the run gave it."""


@dataclass(frozen=True)
class _Fields:
    """What a row may state; every other column goes into `ScoringInput.extra`."""

    response: str
    reference: str
    question: str = ""
    modality: str | None = None
    aliases: tuple[str, ...] = ()
    answer_kind: str = "open"
    sample_id: str = ""
    images: tuple[str, ...] = ()
    """Paths, relative to the file."""
    assume_judge: bool | None = None
    assume_similarity: _Cosine | None = None


_NAMES = tuple(field.name for field in fields(_Fields))


def read_rows(path: Path, defaults: Mapping[str, Any], recorded: frozenset[str] = frozenset()) -> Iterator[Row]:
    """Yield the rows of a JSONL file one by one, also of a run's own `rollouts/scored.jsonl`.

    Args:
        defaults: fields for rows that do not state them.
        recorded: `judge`, `similarity`: which findings that a run recorded stand in for a scorer.

    Raises:
        DataError: a row is wrong (the message names the line); or, after all readable rows, there was none or a line
            that holds no JSON object.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Name a JSONL file with --jsonl.")
    lines, found = JsonLines(path), False
    for number, data in lines:
        found = True
        stated = {"sample_id": str(data.get("id", f"line {number}")), **defaults, **_of_run(data, recorded), **data}
        yield make_row(stated, f"{path}:{number}", path.parent)
    if lines.first_unreadable is not None or (lines.half_written and not found):
        line = lines.first_unreadable or 1
        count = f", and {lines.unreadable - 1} further lines do not" if lines.unreadable > 1 else ""
        raise DataError(f"{path}:{line} holds no JSON object{count}.", "Correct or delete it; all others were read.")
    if lines.half_written:  # as of a run that goes on
        print(f"{lines.note()}; all others were read.", file=sys.stderr)
    if not found:
        raise DataError(f"{path} holds no row.", "Write one JSON object a line.")


def _of_run(data: Mapping[str, Any], recorded: frozenset[str]) -> dict[str, Any]:
    """Return the verdict and the cosine that a run recorded with a response, as assumptions."""
    verdict = _inside(_inside(data, "detail"), "judge")
    cosine = _inside(data, "scores").get("embed_similarity")
    found = {
        "assume_judge": verdict.get("correct") if "judge" in recorded else None,
        "assume_similarity": cosine if cosine != NOT_APPLICABLE and "similarity" in recorded else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _inside(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def make_row(data: Mapping[str, Any], where: str, folder: Path | None = None) -> Row:
    """Return the row that the fields make. Unknown ones are kept as `extra`, unless they look like a misspelt one.

    Args:
        where: file and line, for messages.
        folder: where the row's `images` lie.

    Raises:
        DataError: a field is missing, of the wrong type, or misspelt.
    """
    stated = {name: data[name] for name in _NAMES if data.get(name) is not None}
    extra = {name: value for name, value in data.items() if name not in _NAMES}
    # `question_id` beside `question`, or `idx`, is no slip: only for what the row does not state is a slip looked for.
    for name in extra:
        near = difflib.get_close_matches(name, set(_NAMES) - set(stated), n=1, cutoff=0.75)
        if near:
            raise DataError(f"{where} has an unknown field {name!r}.", f"Did you mean {near[0]!r}?")
    for name in ("response", "reference"):
        if name not in stated:
            raise DataError(f"{where} has no {name!r}.", f"Write the {name} of each row as text.")
    try:
        row = read_options(_Fields, stated, where)
    except ConfigError as error:
        raise DataError(error.problem, error.fix) from None
    if answer_key(row.reference) is None:
        raise DataError(f"{where}.reference is {row.reference!r}: there is no letter or digit in it.", "Fill it in.")
    tag = (row.modality or "").strip().removeprefix("<").removesuffix(">").upper()
    if tag and not is_modality(tag):
        raise DataError(f"{where}.modality is {row.modality!r}.", f"Use one of: {', '.join(MODALITIES)}.")
    item = ScoringInput(
        *(row.response, row.reference, row.question, tag or None, row.aliases, row.answer_kind, row.sample_id),
        extra=extra,
        load_images=lambda: [open_inside(folder or Path(), name).read() for name in row.images],
    )
    score = _inside(data, "scores").get("score")
    group = f"{data.get('step')} {data['group']}" if data.get("group") else None
    run_score = float(score) if isinstance(score, (int, float)) else None
    return Row(item, row.assume_judge, row.assume_similarity, group, run_score)
