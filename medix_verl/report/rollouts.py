"""The scored responses of a run, read from `rollouts/scored.jsonl` and gathered into the groups that were compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from medix.jsonl import JsonLines
from medix.response import parse_response

SHOWN_CHARS: Final = 4000
"""Of a response, question or reference; the whole of it stays in scored.jsonl."""
RAW_CHARS: Final = 600
ADVANTAGE_EPSILON: Final = 1e-6
SAMPLE_FIELDS: Final = ("sample_id", "question", "reference", "modality")
NOT_A_SCORE: Final = -1.0
"""What a component that does not apply, and a detail that was not offered, carry in the flat record."""


@dataclass
class Response:
    """One scored response. Texts are cut to what the page shows."""

    line: int
    session: int
    text: str
    cut_chars: int
    scores: dict[str, float]
    answer: str | None
    thinking_chars: int
    problems: tuple[str, ...]
    verdict: bool | None
    """The judge's finding, None where the judge was not asked."""
    raw: str
    judge_s: float
    attempts: int
    why: dict[str, str]
    """Component -> how its value came about."""
    advantage: float | None = None

    @property
    def reward(self) -> float:
        return self.scores.get("score", 0.0)

    def value(self, name: str) -> float | None:
        """A score, or None where it does not apply or was not offered."""
        value = self.scores.get(name, NOT_A_SCORE)
        return None if value == NOT_A_SCORE else value


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


def read_groups(path: Path, notes: list[str], divide_by_std: bool = True) -> list[Group]:
    """All groups of a `scored.jsonl`, by step and in order of appearance; advantages are filled in.

    A resume repeats the steps since the last checkpoint: of a prompt asked twice at a step, the later group counts.

    Args:
        notes: gets what could not be read.
        divide_by_std: the run's `algorithm.norm_adv_by_std_in_grpo`.
    """
    lines = JsonLines(path)
    groups: dict[tuple[int, str, str], Group] = {}
    seen: dict[tuple[int, str, str], dict[int, Response]] = {}
    misfits = 0
    for number, row in lines:
        try:
            _add(number, row, groups, seen)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            misfits += 1
    if misfits:
        notes.append(f"{path.name}: {misfits} line{'s' if misfits > 1 else ''} without a scored response passed over")
    if note := lines.note():
        notes.append(note)
    for key, group in groups.items():
        group.responses = sorted(seen[key].values(), key=lambda response: response.session)
        if group.is_training:
            _fill_advantages(group, divide_by_std)
    latest = _latest_attempts(groups.values())
    if len(latest) < len(groups):
        notes.append(f"{path.name}: {len(groups) - len(latest)} groups of steps that were done again are left out")
    return sorted(latest, key=lambda group: group.step)


def _latest_attempts(groups: Iterable[Group]) -> list[Group]:
    """Of the groups for one prompt at one step, the last; a group without a sample id stays."""
    latest: dict[tuple[object, ...], Group] = {}
    for group in groups:
        prompt = (group.sample_id, group.question, group.reference) if group.sample_id else (group.uid,)
        latest[(group.step, group.split, *prompt)] = group
    return list(latest.values())


def all_responses(groups: Iterable[Group]) -> Iterator[Response]:
    return (response for group in groups for response in group.responses)


def _add(
    number: int,
    row: dict[str, Any],
    groups: dict[tuple[int, str, str], Group],
    seen: dict[tuple[int, str, str], dict[int, Response]],
) -> None:
    response = _response(number, row)
    step, split = int(row["step"]), str(row.get("split") or "")
    # A row without a group is its own.
    uid = str(row.get("group") or f"line-{number}")
    key = (step, split, uid)
    if key not in groups:
        sample, question, reference, modality = (clip(str(row.get(k) or ""))[0] for k in SAMPLE_FIELDS)
        groups[key] = Group(uid, step, split, sample, question, reference, modality)
        seen[key] = {}
    # Sessions are numbered from 0 within a group; without a number, each line stands for itself.
    slot = response.session if response.session >= 0 else -number
    seen[key].pop(slot, None)
    seen[key][slot] = response


def _response(number: int, row: dict[str, Any]) -> Response:
    full = row["response"]
    if not isinstance(full, str):
        raise TypeError("response is no text")
    scores = {str(k): float(v) for k, v in row["scores"].items() if isinstance(v, (int, float)) and math.isfinite(v)}
    if "score" not in scores:
        raise KeyError("score")
    parsed = parse_response(full)
    text, cut = clip(full)
    detail = _mapping(row.get("detail"))
    judge = _mapping(detail.get("judge"))
    whys = {name: _mapping(why).get("why") for name, why in _mapping(detail.get("details")).items()}
    correct = judge.get("correct")
    return Response(
        line=number,
        session=int(row.get("session", -1)),
        text=text,
        cut_chars=cut,
        scores=scores,
        answer=parsed.answer,
        thinking_chars=len(parsed.thinking or ""),
        problems=parsed.problems,
        verdict=correct if isinstance(correct, bool) else None,
        raw=clip(str(judge.get("raw") or ""), RAW_CHARS)[0],
        judge_s=float(judge.get("latency_s") or 0.0),
        attempts=int(judge.get("attempts") or 0),
        why={name: str(why)[:60] for name, why in whys.items() if why},
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def clip(text: str, limit: int = SHOWN_CHARS) -> tuple[str, int]:
    """The beginning of a text, and how many characters were cut."""
    return text[:limit], max(0, len(text) - limit)


def _fill_advantages(group: Group, divide_by_std: bool) -> None:
    if len(group.responses) < 2:
        return
    mean = group.mean
    scale = group.std + ADVANTAGE_EPSILON if divide_by_std else 1.0
    for response in group.responses:
        response.advantage = (response.reward - mean) / scale
