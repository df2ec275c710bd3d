"""The composite reward: components, their effective weights, and one flat record a response.

total = sum of weight * value over the components that apply / sum of their weights
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medix.errors import ScorerError
from reward_fns.contracts import (
    NOT_APPLICABLE,
    NOT_OFFERED,
    Component,
    ComponentScore,
    Scorers,
    ScoringInput,
    Similarity,
    Verdict,
)
from reward_fns.shared import SharedScorers
from reward_fns.telemetry import FLAGS

ACCURACIES = ("llm_accuracy", "embed_accuracy")
"""`acc` is the first of these that is weighted, else the total."""

OK_SUFFIX = "_ok"
RESERVED = frozenset(
    (
        *("score", "acc", "judge_seconds", "embed_seconds", "judge_yes_probability", "embed_similarity"),
        *("reward", "details", "judge", "sample_id"),
        *FLAGS,
    )
)
"""Keys of the record, and those that training and veRL add: no component may take their place."""

AT_ONCE = 320
"""Responses worked on at once: more than the judge's 256 calls in flight, so that no slot waits for a response."""


@dataclass(frozen=True)
class Weighted:
    """A component in its place: `weight` as configured, `effective` after all weights are scaled to sum 1."""

    name: str
    component: Component
    weight: float
    effective: float
    options: Mapping[str, Any]


@dataclass(frozen=True)
class CompositeScore:
    """The reward of one response, with everything that led to it."""

    total: float
    """In [0, 1]."""
    components: Mapping[str, ComponentScore]
    """The weighted components only."""
    names: tuple[str, ...]
    """All configured components, weighted or not."""
    remote: tuple[str, ...]
    verdict: Verdict | None
    similarity: Similarity | None
    judge_seconds: float
    embed_seconds: float

    def flat(self) -> dict[str, float]:
        """The same float keys for every response: a component that does not apply or has no weight is -1.

        Faults are raised, so `<component>_ok` is 1 in every score there is; whoever records a fault writes 0.
        """
        values = {name: _value(self.components.get(name)) for name in self.names}
        acc = next((values[name] for name in ACCURACIES if values.get(name, -1.0) >= 0), self.total)
        return {
            "score": self.total,
            "acc": acc,
            **values,
            **{f"{name}{OK_SUFFIX}": 1.0 for name in self.remote},
            "judge_seconds": self.judge_seconds,
            "embed_seconds": self.embed_seconds,
            "judge_yes_probability": self.verdict.yes_probability if self.verdict else NOT_OFFERED,
            "embed_similarity": self.similarity.cosine if self.similarity else NOT_OFFERED,
        }

    def record(self) -> dict[str, Any]:
        """A JSON-able breakdown for the log of scored responses."""
        return {
            **self.flat(),
            "details": {name: dict(score.details) for name, score in self.components.items()},
            "judge": asdict(self.verdict) if self.verdict else None,
        }


def _value(score: ComponentScore | None) -> float:
    return score.value if score is not None and score.applicable else NOT_APPLICABLE


class Composite:
    """Scores responses. Made by `reward_fns.build_composite`, which validates.

    At most `at_once` are worked on; the rest wait. Of thousands that come together, the first calls are so on their way
    before the last response is read. Use from one event loop.
    """

    def __init__(self, preset: str, parts: Sequence[Weighted], scorers: Scorers, at_once: int = AT_ONCE) -> None:
        self.preset, self.parts, self.scorers = preset, tuple(parts), scorers
        self._active = [part for part in self.parts if part.weight > 0]
        self._admitted = asyncio.Semaphore(at_once)

    @property
    def needs(self) -> frozenset[str]:
        """What the weighted components ask of the scorers: `judge`, `similarity`, both or none."""
        return frozenset().union(*(part.component.needs for part in self._active))

    @property
    def remote(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts if part.component.needs)

    async def score(self, item: ScoringInput, scorers: Scorers | None = None) -> CompositeScore:
        """The reward of one response. `scorers` stand in for the composite's own, for this response.

        Raises:
            ScorerError: a scorer or a custom component failed; no component's fault is ever a score.
        """
        shared = SharedScorers(scorers or self.scorers)
        async with self._admitted:
            scores = await self._components(item, shared)
        weight = sum(part.weight for part in self._active if scores[part.name].applicable)
        paid = sum(part.weight * scores[part.name].value for part in self._active if scores[part.name].applicable)
        return CompositeScore(
            total=paid / weight if weight else 0.0,
            components=scores,
            names=tuple(part.name for part in self.parts),
            remote=self.remote,
            verdict=shared.verdict,
            similarity=shared.similarity_found,
            judge_seconds=shared.judge_seconds,
            embed_seconds=shared.embed_seconds,
        )

    async def _components(self, item: ScoringInput, shared: SharedScorers) -> dict[str, ComponentScore]:
        local = [part for part in self._active if not part.component.needs]
        remote = [part for part in self._active if part.component.needs]
        # What asks no scorer never waits: it goes first, without a task of its own.
        scores = {part.name: _checked(part.name, await part.component(item, shared)) for part in local}
        if len(remote) == 1:
            scores[remote[0].name] = _checked(remote[0].name, await remote[0].component(item, shared))
        elif remote:
            # All are awaited before a fault is raised, so that verdicts on their way still reach the cache.
            calls = (part.component(item, shared) for part in remote)
            for part, outcome in zip(remote, await asyncio.gather(*calls, return_exceptions=True), strict=True):
                if isinstance(outcome, BaseException):
                    raise outcome
                scores[part.name] = _checked(part.name, outcome)
        return scores

    def table(self) -> list[dict[str, Any]]:
        """One row a component: name, weight as configured, effective weight, options. JSON-able."""
        return [
            {"component": p.name, "weight": p.weight, "effective": p.effective, "options": dict(p.options)}
            for p in self.parts
        ]


def _checked(name: str, score: ComponentScore) -> ComponentScore:
    value = score.value
    if not score.applicable:
        return score
    if isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 1:
        return score
    raise ScorerError(f"component {name!r} to give a value in [0, 1]", repr(value), f"correct the component {name!r}")
