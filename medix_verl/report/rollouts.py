"""The scored responses of a run, gathered from `rollouts/scored.jsonl` into the groups that were compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from medix.jsonl import JsonLines
from medix.response import parse_response
from medix.sample import NOT_APPLICABLE
from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.composite import ACCURACIES, DISAGREE

SHOWN_CHARS: Final = 4000
"""Of a response, question or reference; the whole of it stays in scored.jsonl."""
RAW_CHARS: Final = 600
ADVANTAGE_EPSILON: Final = 1e-6
FAR_COSINE: Final = 0.5
SHORT_CHARS: Final = 2
"""An answer with at most so many letters and digits is very short."""


@dataclass
class Response:
    """One scored response, as the page holds it. Texts are cut to what the page shows."""

    line: int
    session: int
    text: str
    cut_chars: int
    scores: dict[str, float]
    """Those that apply."""
    answer: str | None
    thinking_chars: int
    problems: tuple[str, ...]
    verdict: bool | None
    """The judge's finding, None if the judge was not asked."""
    raw: str
    attempts: int
    why: dict[str, str]
    """Component -> how its value came about."""
    right: bool | None
    """Whether the answer counted as right; None if nothing judged it."""
    advantage: float | None = None

    @property
    def reward(self) -> float:
        return self.scores.get("score", 0.0)

    @property
    def is_paid(self) -> bool:
        """Whether the judge or the embedder counted the answer as right."""
        return max(self.scores.get(name, 0.0) for name in ACCURACIES) >= 0.5


@dataclass
class Group:
    """Responses to one prompt at one step; a validation prompt is a group too, mostly of one."""

    uid: str
    step: int
    split: str
    sample_id: str
    question: str
    reference: str
    modality: str
    responses: list[Response] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The group's name in the page and in links to it."""
        return f"{self.step}/{self.uid}" if self.is_training else f"{self.step}/{self.split}/{self.uid}"

    @property
    def is_training(self) -> bool:
        return self.split in ("train", "")

    @property
    def mean(self) -> float:
        return fmean(response.reward for response in self.responses)

    @property
    def std(self) -> float:
        """Of a sample (n - 1), as veRL's GRPO takes it; 0 for a single response."""
        return stdev(response.reward for response in self.responses) if len(self.responses) > 1 else 0.0

    @property
    def no_spread(self) -> bool:
        """Whether the group carries no gradient: several responses, one reward."""
        return len(self.responses) > 1 and len({response.reward for response in self.responses}) == 1

    def flags(self, response: Response) -> set[str]:
        """Return what makes a response worth a look: `disagree`, or a key of `FLAGGED` in the monitors."""
        judged, near = (response.scores.get(name, 0.0) for name in ("llm_accuracy", "embed_accuracy"))
        answer, is_paid = response.answer, response.is_paid
        found = {
            "disagree": response.scores.get(DISAGREE) == 1.0,
            "contradicted": is_paid and answer is not None and _contradicts(self.reference, answer),
            "near_refused": response.verdict is False and near >= 0.5,
            "judge_far": response.scores.get("embed_similarity", 1.0) < FAR_COSINE and judged >= 0.5,
            # An answer that is missing altogether is a matter of the form.
            "short_paid": is_paid and answer is not None and _letters(answer) <= SHORT_CHARS < _letters(self.reference),
        }
        return {name for name, is_set in found.items() if is_set}


def read_groups(path: Path, notes: list[str], divide_by_std: bool = True) -> list[Group]:
    """Return all groups of a `scored.jsonl`, by step and in order of appearance, with advantages filled in.

    A resume repeats the steps since the last checkpoint: of a prompt asked twice at a step, the later group counts.

    Args:
        notes: gets what could not be read.
        divide_by_std: the run's `algorithm.norm_adv_by_std_in_grpo`.
    """
    lines = JsonLines(path)
    groups: dict[tuple[int, str, str], Group] = {}
    misfits = 0
    for number, row in lines:
        try:
            _add(number, row, groups)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            misfits += 1
    if misfits:
        notes.append(f"{path.name}: {misfits} line{'s' if misfits > 1 else ''} without a scored response passed over")
    if note := lines.note():
        notes.append(note)
    latest: dict[tuple[object, ...], Group] = {}
    for group in groups.values():
        prompt = (group.sample_id, group.question, group.reference) if group.sample_id else (group.uid,)
        latest[(group.step, group.split, *prompt)] = group
    if len(latest) < len(groups):
        notes.append(f"{path.name}: {len(groups) - len(latest)} groups of steps that were done again are left out")
    for group in latest.values():
        group.responses.sort(key=lambda response: response.session)
        if group.is_training and len(group.responses) > 1:
            mean, scale = group.mean, group.std + ADVANTAGE_EPSILON if divide_by_std else 1.0
            for response in group.responses:
                response.advantage = (response.reward - mean) / scale
    return sorted(latest.values(), key=lambda group: group.step)


def _add(number: int, row: dict[str, Any], groups: dict[tuple[int, str, str], Group]) -> None:
    response = _response(number, row)
    # A row without a group is its own.
    key = (int(row["step"]), str(row.get("split") or ""), str(row.get("group") or f"line-{number}"))
    if key not in groups:
        names = ("sample_id", "question", "reference", "modality")
        sample, question, reference, modality = (str(row.get(name) or "")[:SHOWN_CHARS] for name in names)
        groups[key] = Group(key[2], key[0], key[1], sample, question, reference, modality)
    found = groups[key].responses
    # Sessions are numbered from 0 within a group; one that was scored again replaces the first.
    if response.session >= 0:
        found[:] = [other for other in found if other.session != response.session]
    found.append(response)


def _response(number: int, row: dict[str, Any]) -> Response:
    full = row["response"]
    if not isinstance(full, str):
        raise TypeError("response is no text")
    pairs = ((str(k), float(v)) for k, v in row["scores"].items() if isinstance(v, (int, float)) and math.isfinite(v))
    scores = {name: float(f"{value:.5g}") for name, value in pairs if value != NOT_APPLICABLE}
    if "score" not in scores:
        raise KeyError("score")
    parsed = parse_response(full)
    detail = _mapping(row.get("detail"))
    judge, correct = _mapping(detail.get("judge")), _mapping(detail.get("judge")).get("correct")
    whys = {name: _mapping(why).get("why") for name, why in _mapping(detail.get("details")).items()}
    accuracies = [scores[name] for name in ("acc", "llm_accuracy", "embed_accuracy") if name in scores]
    return Response(
        line=number,
        session=int(row.get("session", -1)),
        text=full[:SHOWN_CHARS],
        cut_chars=max(0, len(full) - SHOWN_CHARS),
        scores=scores,
        answer=None if parsed.answer is None else parsed.answer[:SHOWN_CHARS],
        thinking_chars=len(parsed.thinking or ""),
        problems=parsed.problems,
        verdict=correct if isinstance(correct, bool) else None,
        raw=str(judge.get("raw") or "")[:RAW_CHARS],
        attempts=int(judge.get("attempts") or 0),
        why={name: str(why)[:60] for name, why in whys.items() if why},
        right=accuracies[0] >= 0.5 if accuracies else None,
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=100_000)
def _contradicts(reference: str, answer: str) -> bool:
    return find_contradiction(reference, answer) is not None


def _letters(text: str) -> int:
    return sum(char.isalnum() for char in text)
