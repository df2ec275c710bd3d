"""Read a response and its reference before anything is judged: strictly, or as the released reward does."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Literal

from medix.response import parse_response
from medix.same_answer import same_answer
from reward_fns.component import ScoringInput

ReadingName = Literal["strict", "paper"]

RAW_SOLUTION: Final = "solution"
"""Column of the released data that holds tag and reference in one text; `read_paper` prefers it to the split form."""
_MODALITY_PROBLEMS: Final = {"missing_modality", "unknown_modality"}


@dataclass(frozen=True)
class Reading:
    """What is to be compared, and what the form of the response is worth."""

    candidate: str | None
    """The candidate answer; None if there is none that may be paid."""
    reference: str
    exact: bool
    """Whether the answer is the reference (or, read strictly, one of its aliases)."""
    well_formed: bool
    modality_matches: bool | None
    """None if the sample has no modality to match."""
    problems: tuple[str, ...] = ()


@lru_cache(maxsize=1024)  # every component of a response asks for the same reading
def read_strict(item: ScoringInput) -> Reading:
    """Read the last complete answer after the thinking closes; one block of each kind, no answer refused as short."""
    parsed = parse_response(item.response)
    answer = parsed.scorable_answer
    return Reading(
        candidate=answer,
        reference=item.reference,
        exact=answer is not None and any(same_answer(answer, text) for text in (item.reference, *item.aliases)),
        # A wrong or missing tag is the modality component's business: one fault is charged once.
        well_formed=not set(parsed.problems) - _MODALITY_PROBLEMS,
        modality_matches=None if item.modality is None else parsed.modality == item.modality,
        problems=parsed.problems,
    )


_LOG = logging.getLogger(__name__)
_PAPER_TURN: Final = re.compile(r"</thinking>\s*<answer>")
_PAPER_GARBAGE: Final = ("__", ":", "?")


def read_paper(item: ScoringInput) -> Reading:
    """Read as the released reward does, its faults included; docs/reward.md lists the cases.

    The released data glue the tag to the reference, `<X_RAY> pneumonia`. That text is taken from the row's column
    `solution` if it has one; else it is glued from modality and reference, or is the reference of a row without one.
    """
    raw = item.extra.get(RAW_SOLUTION)
    if not isinstance(raw, str):
        raw = item.reference if item.modality is None else f"<{item.modality}> {item.reference}"
    return _read_paper(item.response, raw)


@lru_cache(maxsize=1024)
def _read_paper(response: str, glued: str) -> Reading:
    # In two passes, each linear; as one pattern, as released, long runs of blanks take quadratic time.
    text = re.sub(r"(?<!\s)\s+([<>/])", r"\1", re.sub(r"([<>/])\s+", r"\1", response))
    tag, has_tag, rest = glued.partition(">")
    if not has_tag:
        _warn_of_reference_without_tag()
    answer = _paper_answer(text).strip().strip(".")
    reference = rest.strip().strip(".")
    invalid = len(answer) <= 1 or any(sign in answer for sign in _PAPER_GARBAGE)
    before, has_thinking, after = text.partition("<thinking>")
    return Reading(
        candidate=answer if has_tag and not invalid else None,
        reference=reference,
        exact=bool(has_tag) and not invalid and answer == reference,
        well_formed=_paper_form((has_thinking + after).strip()),
        # A reference without `>` is compared whole, and one with a blank before its tag never matches: as released.
        modality_matches=bool(has_thinking) and before.strip().upper() == f"{tag}>".upper(),
        problems=("invalid_answer",) if invalid else () if has_tag else ("reference_without_tag",),
    )


def _paper_answer(text: str) -> str:
    """Return the first answer block, else everything, as the pattern `<answer>(.*?)</answer>` finds it."""
    _, opening, rest = text.partition("<answer>")
    inner, closing, _ = rest.partition("</answer>")
    return inner if opening and closing else text


def _paper_form(text: str) -> bool:
    """Return whether `<thinking>.*?</thinking>\\s*<answer>.*?</answer>` matches in full; further blocks pass."""
    inner = text.removeprefix("<thinking>")
    if inner == text or not text.endswith("</answer>"):
        return False
    found = _PAPER_TURN.search(inner)
    return found is not None and found.end() <= len(inner) - len("</answer>")


@cache
def _warn_of_reference_without_tag() -> None:
    _LOG.warning(
        "A reference has no modality tag: for such rows the preset `paper` pays no accuracy, whatever the answer, as "
        "released. Text-only rows teach nothing under it; use reward_preset=strict for them."
    )


READINGS: Final[dict[str, Callable[[ScoringInput], Reading]]] = {"strict": read_strict, "paper": read_paper}
