"""How a response and its reference are read, before anything is judged: our strict way, and the released way."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from medix.response import parse_response
from reward_fns.contracts import ScoringInput

ReadingName = Literal["strict", "paper"]


@dataclass(frozen=True)
class Reading:
    """What is to be compared, and what the form of the response is worth."""

    candidate: str | None
    """The candidate answer; None where there is none that may be paid."""
    reference: str
    exact: bool
    """Whether the answer equals the reference (or, read strictly, one of its aliases)."""
    well_formed: bool
    modality_matches: bool | None
    """None where the sample has no modality to match."""
    problems: tuple[str, ...] = ()


_MODALITY_PROBLEMS = {"missing_modality", "unknown_modality"}


@lru_cache(maxsize=1024)  # every component of a response asks for the same reading
def read_strict(item: ScoringInput) -> Reading:
    """The last complete answer after the thinking closes, with one block of each kind and nothing rejected as short."""
    parsed = parse_response(item.response)
    answer = parsed.scorable_answer
    references = (item.reference, *item.aliases)
    return Reading(
        candidate=answer,
        reference=item.reference,
        exact=answer is not None and any(same_text(answer, reference) for reference in references),
        # A wrong or missing tag is the modality component's business: one fault is charged once.
        well_formed=not set(parsed.problems) - _MODALITY_PROBLEMS,
        modality_matches=None if item.modality is None else parsed.modality == item.modality,
        problems=parsed.problems,
    )


def same_text(left: str, right: str) -> bool:
    """Equal but for white space, one final full stop, and case; case counts beside digits (5 mV is not 5 MV)."""
    left, right = (" ".join(text.split()).removesuffix(".").rstrip() for text in (left, right))
    if any(char.isdigit() for char in left):
        return left == right
    return left.casefold() == right.casefold()


_LOG = logging.getLogger(__name__)
_PAPER_TURN = re.compile(r"</thinking>\s*<answer>")
_PAPER_ANSWER: Final = ("<answer>", "</answer>")
_PAPER_GARBAGE: Final = ("__", ":", "?")


def _without_blanks_at_signs(text: str) -> str:
    """`re.sub(r"\\s*([<>/])\\s*", r"\\1", text)`, which takes quadratic time on long runs of blanks."""
    parts = re.split("([<>/])", text)
    last = len(parts) - 1
    for index in range(0, last + 1, 2):
        part = parts[index].lstrip() if index else parts[index]
        parts[index] = part.rstrip() if index < last else part
    return "".join(parts)


def _paper_answer(text: str) -> str:
    """The first answer block, else everything, as the pattern `<answer>(.*?)</answer>` finds it in linear time."""
    opening, closing = _PAPER_ANSWER
    start = text.find(opening)
    end = text.find(closing, start + len(opening)) if start >= 0 else -1
    return text if end < 0 else text[start + len(opening) : end]


def _paper_form(text: str) -> bool:
    """A full match of `<thinking>.*?</thinking>\\s*<answer>.*?</answer>`, which lets further blocks pass."""
    inner = text.removeprefix("<thinking>")
    if inner == text or not text.endswith("</answer>"):
        return False
    found = _PAPER_TURN.search(inner)
    return found is not None and found.end() <= len(inner) - len("</answer>")


@lru_cache(maxsize=1024)
def read_paper(item: ScoringInput) -> Reading:
    """The released reward's reading, its faults included: see docs/reward.md for the list of cases.

    The released data glue the modality to the reference, `<X_RAY> pneumonia`. Where `item.modality` is None, the
    reference is taken as glued; without a tag in it, nothing but the form can be paid, as released.
    """
    text = _without_blanks_at_signs(item.response)
    glued = item.reference if item.modality is None else f"<{item.modality}> {item.reference}"
    tag, has_tag, rest = glued.partition(">")
    if not has_tag:
        _warn_of_reference_without_tag(item.sample_id)
    reference = rest.strip().strip(".")
    answer = _paper_answer(text).strip().strip(".")
    invalid = len(answer) <= 1 or any(sign in answer for sign in _PAPER_GARBAGE)
    before, has_thinking, after = text.partition("<thinking>")
    return Reading(
        candidate=answer if has_tag and not invalid else None,
        reference=reference,
        exact=bool(has_tag) and not invalid and answer == reference,
        well_formed=_paper_form((has_thinking + after).strip()),
        modality_matches=bool(has_tag and has_thinking) and before.strip().upper() == f"{tag}>".upper(),
        problems=("invalid_answer",) if invalid else () if has_tag else ("reference_without_tag",),
    )


_warned: Final[list[str]] = []


def _warn_of_reference_without_tag(sample_id: str) -> None:
    if not _warned:
        _warned.append(sample_id)
        _LOG.warning(
            "the preset `paper` pays only the form (0.1) for a reference without a modality tag, whatever the answer,"
            " as released; the first is %r. Text-only rows teach nothing under it: use reward_preset=strict",
            sample_id,
        )


READINGS: Final[dict[str, Callable[[ScoringInput], Reading]]] = {"strict": read_strict, "paper": read_paper}
