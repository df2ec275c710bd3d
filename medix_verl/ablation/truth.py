"""What was true: an oracle that no variant trains on, held against what each reward paid.

The oracle knows the reference and its other accepted wordings word for word, and for the closed kinds of question the
few words that an answer can be. It never asks an embedder, a judge or the clinical rules, so no variant can be good at
pleasing it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import DataError
from medix.jsonl import JsonLines
from medix.response import parse_response
from medix.same_answer import answer_key, same_answer
from medix.sample import NOT_APPLICABLE
from medix_verl.report.run_folder import own_file
from reward_fns.composite import ACCURACIES

TRAIN_AGAIN: Final = "Delete the run's folder; the same command trains it again."
_WORD: Final = re.compile(r"[a-z]+|\d+")
_NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CLOSED: Final[Mapping[str, Mapping[str, str]]] = {
    "side": {"left": "left", "right": "right", "both": "both", "bilateral": "both"},
    "presence": {"yes": "yes", "present": "yes", "absent": "no", "no": "no"},
    "count": {word: str(number) for number, word in enumerate(_NUMBERS)} | {str(n): str(n) for n in range(11)},
}
"""Kind of question -> word -> what it says. Another wording of the same closed answer is true as well."""
_NEGATIONS: Final = frozenset(("no", "not", "nor", "without"))
_FILLERS: Final = frozenset(
    ("a", "an", "the", "it", "is", "are", "there", "on", "in", "of", "at", "to", "side", "half", "visible", "seen")
)
"""Words that a closed answer may have besides its own and those of the reference."""


@dataclass(frozen=True)
class Known:
    """What the oracle knows of a sample."""

    reference: str
    aliases: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Finding:
    """One validation response: what it earned for its content, and whether it was true."""

    step: int
    sample_id: str
    kind: str
    paid: float
    """Mean value of the accuracy components that the variant weights, in [0, 1]; the whole reward if it has none."""
    true: bool
    components: Mapping[str, float]
    question: str
    reference: str
    candidate: str
    score: float


def read_truth(path: Path) -> dict[str, Known]:
    """Read the JSONL that the validation samples came from: `id`, `answer` or `reference`, `aliases`, `kind`.

    Raises:
        DataError: the file is missing, damaged, or a row is wrong or there twice.
    """
    lines = JsonLines(path)
    known: dict[str, Known] = {}
    for number, row in lines:
        sample_id, reference, aliases = row.get("id"), row.get("reference", row.get("answer")), row.get("aliases") or []
        if not isinstance(reference, str) or answer_key(reference) is None or not isinstance(sample_id, str):
            raise DataError(f"Line {number} of {path} has no `id` or no `answer`.", "Complete the row.")
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            raise DataError(f"The `aliases` in line {number} of {path} are no list of texts.", "Write them as a list.")
        if sample_id in known:
            raise DataError(f"Line {number} of {path} has the id {sample_id!r} again.", "Give each sample its own.")
        known[sample_id] = Known(reference, tuple(aliases), str(row.get("kind", "open")))
    if note := lines.note():
        raise DataError(f"{note}.", f"Restore {path}.")
    if not known:
        raise DataError(f"There are no samples in {path}.", "Name the validation samples with `truth:` in the study.")
    return known


def is_true(candidate: str | None, known: Known) -> bool:
    """Return whether an answer is right: the reference or an alias, or the same closed answer in other words.

    Example:
        >>> side = Known("left", (), "side")
        >>> [is_true(text, side) for text in ("Left", "on the left side", "left or right", None)]
        [True, True, False, False]
    """
    if candidate is None:
        return False
    if any(same_answer(candidate, text) for text in (known.reference, *known.aliases)):
        return True
    wanted = _closed(known.reference, known.kind)
    more = set(_WORD.findall(candidate.lower())) - set(_WORD.findall(known.reference.lower())) - _FILLERS
    return wanted is not None and _closed(candidate, known.kind) == wanted and more <= {*CLOSED[known.kind], "not"}


def _closed(text: str, kind: str) -> str | None:
    """Return which of the kind's answers a text gives, or None if it gives none, several, or a negated one."""
    words = set(_WORD.findall(text.lower()))
    said = {CLOSED.get(kind, {})[word] for word in words & CLOSED.get(kind, {}).keys()}
    negated = not _NEGATIONS.isdisjoint(words)
    if kind == "presence" and negated:
        # "no spleen present" says no; "not absent" and "yes, no" are left to the exact comparison.
        return None if {"yes", "absent"} & words else "no"
    return said.pop() if len(said) == 1 and not negated else None


def read_findings(run: Path, truth: Mapping[str, Known], notes: list[str] | None = None) -> list[Finding]:
    """Read every validation response of a run; after a resume the later one of a step, sample and session counts.

    Args:
        notes: gets what could not be read.

    Raises:
        DataError: a line is no scored response, or is for a sample that the truth does not know.
    """
    notes = [] if notes is None else notes
    path = own_file(run, "rollouts/scored.jsonl", notes)
    lines = JsonLines(path or run / "rollouts" / "scored.jsonl")
    found: dict[tuple[int, str, Any], Finding] = {}
    for number, row in lines if path else ():
        if row.get("split") != "val":
            continue
        try:
            finding = _finding(row, truth)
        except (TypeError, ValueError, AttributeError, OverflowError, LookupError) as error:
            raise DataError(f"Line {number} of {path} is no scored response: {error!r}.", TRAIN_AGAIN) from error
        found[finding.step, finding.sample_id, str(row.get("session", 0))] = finding
    notes += filter(None, [lines.note()])
    return list(found.values())


def _finding(row: Mapping[str, Any], truth: Mapping[str, Known]) -> Finding:
    sample_id, scores = str(row["sample_id"]), row["scores"]
    known = truth.get(sample_id)
    if known is None:
        raise DataError(
            f"A validation response is for {sample_id!r}, which the truth does not know.",
            "Name the file that the validation samples were prepared from with `truth:` in the study.",
        )
    candidate = parse_response(row["response"]).scorable_answer
    accuracies = {
        name: float(scores[name]) for name in ACCURACIES if scores.get(name, NOT_APPLICABLE) != NOT_APPLICABLE
    }
    score = float(scores["score"])
    if not all(0.0 <= value <= 1.0 for value in accuracies.values()) or not math.isfinite(score):
        raise ValueError("a score that no component gives")
    return Finding(
        step=int(row["step"]),
        sample_id=sample_id,
        kind=known.kind,
        paid=sum(accuracies.values()) / len(accuracies) if accuracies else score,
        true=is_true(candidate, known),
        components=accuracies,
        question=str(row.get("question", "")),
        reference=known.reference,
        candidate=candidate or "",
        score=score,
    )
