"""What a reward component gets and gives. A component is any callable of this shape:

    async def brevity(item: ScoringInput, scorers: Scorers) -> ComponentScore: ...

A component states nothing about weights, never loads a model, and raises instead of scoring when a scorer fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from reward_fns.scorers.types import NOT_OFFERED, JudgeRequest, Scorers, Similarity, Verdict

__all__ = [
    "NOT_APPLICABLE",
    "NOT_OFFERED",
    "Component",
    "ComponentScore",
    "JudgeRequest",
    "Scorers",
    "ScoringInput",
    "Similarity",
    "Verdict",
]

NOT_APPLICABLE = -1.0
"""Stands for the value of a component that does not apply, or is switched off, in the flat record of floats."""


@dataclass(frozen=True)
class ScoringInput:
    """One response of the policy and what it is scored against."""

    response: str
    """Decoded text, as the policy wrote it."""
    reference: str
    """What the answer is held against."""
    question: str = ""
    modality: str | None = None
    """Tag without brackets, or None where the sample has none (text only)."""
    aliases: tuple[str, ...] = ()
    """Other accepted wordings of `reference`."""
    answer_kind: str = "open"
    sample_id: str = ""


@dataclass(frozen=True)
class ComponentScore:
    """One component's finding."""

    value: float
    """In [0, 1]."""
    applicable: bool = True
    """Where False, the component drops out for this response and the other weights are renormalised."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able reasons, for the log of scored responses."""


class Component(Protocol):
    """A component with its options. `needs` names what it asks of the scorers: `judge`, `similarity`, or neither."""

    @property
    def needs(self) -> frozenset[str]: ...

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore: ...
