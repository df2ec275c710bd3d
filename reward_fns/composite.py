"""The composite reward: components, their effective weights, and the one flat record that every response gets.

total = sum of weight * value over the components that apply / sum of their weights
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from medix.errors import ScorerError
from medix.response import parse_response
from medix.same_answer import answer_key
from medix.sample import NOT_APPLICABLE
from reward_fns.component import Component, ComponentScore, ScoringInput
from reward_fns.scorers.types import JudgeRequest, Scorers, Similarity, Verdict, VerdictParse

ACCURACIES: Final = ("llm_accuracy", "embed_accuracy")
"""`acc` is the first of these that has a weight, else the total."""
OK_SUFFIX: Final = "_ok"

ANSWER_HASH: Final = "answer_hash"
"""Equal for responses with the same answer; of the whole response if no answer can be read."""
JUDGE_ASKED, JUDGE_CACHED, JUDGE_SHARED = "judge_asked", "judge_cached", "judge_shared"
"""1 or 0: the judge was needed; its verdict came from the cache; it came from another response's call."""
JUDGE_FAULTS: Final = "judge_faults"
"""Requests to the judge that failed since the response before this one was scored."""
DISAGREE: Final = "judge_embedder_disagree"
"""1 or 0 for a response that both were asked about: the verdict is not what the cosine says at its threshold."""
FLAGS: Final = frozenset((ANSWER_HASH, JUDGE_ASKED, JUDGE_CACHED, JUDGE_SHARED, JUDGE_FAULTS, DISAGREE))
"""Keys of the record that are neither scores nor components."""
RESERVED: Final = FLAGS | {
    *("score", "acc", "judge_seconds", "embed_seconds", "judge_yes_probability", "embed_similarity"),
    *("reward", "details", "judge", "sample_id"),
}
"""Keys of the record, and those that training and veRL add: no component may have one of these names."""

AT_ONCE: Final = 320
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
    values: Mapping[str, float]
    """The flat record, see `flat`."""
    verdict: Verdict | None

    def flat(self) -> dict[str, float]:
        """Return the flat record: the same float keys for every response, as veRL needs them.

        `score`, `acc`, one key a configured component (-1: it does not apply, or has no weight), `<component>_ok` of
        those that ask a scorer (1: faults are raised, so who records a fault writes 0), `judge_seconds`,
        `embed_seconds`, `judge_yes_probability` and `embed_similarity` (-1: not asked or not offered), and `FLAGS`.
        """
        return dict(self.values)

    def record(self) -> dict[str, Any]:
        """Return a JSON-able breakdown for the log of scored responses: the flat record, reasons, and the verdict."""
        return {
            **self.values,
            "details": {name: dict(score.details) for name, score in self.components.items()},
            "judge": asdict(self.verdict) if self.verdict else None,
        }


class SharedScorers:
    """The scorers as the components of one response see them: equal questions are asked once, and all is kept."""

    def __init__(self, scorers: Scorers) -> None:
        self._scorers = scorers
        self._asked: dict[Any, asyncio.Future[Any]] = {}
        self.seconds = {"judge": 0.0, "similarity": 0.0}
        self.verdict: Verdict | None = None
        self.near: Similarity | None = None

    async def judge(self, request: JudgeRequest) -> Verdict:
        verdict: Verdict = await self._once("judge", request)
        if request.template is None:  # a component's own question is no verdict on the answer
            self.verdict = verdict
        return verdict

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        near: Similarity = await self._once("similarity", reference, candidate)
        self.near = near
        return near

    async def _once(self, what: str, *asked: Any) -> Any:
        start = time.monotonic()
        if asked not in self._asked:
            self._asked[asked] = asyncio.ensure_future(getattr(self._scorers, what)(*asked))
        found = await asyncio.shield(self._asked[asked])
        self.seconds[what] = max(self.seconds[what], time.monotonic() - start)
        return found


class Composite:
    """Scores responses. Made by `reward_fns.build_composite`, which validates.

    At most `at_once` are worked on and the rest wait, so that of thousands that come together the first calls are on
    their way before the last response is read. Use from one event loop.
    """

    def __init__(self, preset: str, parts: Sequence[Weighted], scorers: Scorers, at_once: int = AT_ONCE) -> None:
        self.preset, self.parts, self.scorers = preset, tuple(parts), scorers
        self._active = [part for part in self.parts if part.weight > 0]
        self._admitted = asyncio.Semaphore(at_once)
        self._faults_seen = 0.0

    @property
    def needs(self) -> frozenset[str]:
        """What the weighted components ask of the scorers: `judge`, `similarity`, both or neither."""
        return frozenset().union(*(part.component.needs for part in self._active))

    @property
    def verdicts(self) -> tuple[VerdictParse, ...]:
        """How the weighted components have replies to the judge's own prompt read, which has to fit all of them."""
        asking = [part.component for part in self._active if "judge" in part.component.needs]
        return tuple(sorted({read for one in asking if (read := getattr(one, "verdict", None))})) or ("strict",)

    async def score(self, item: ScoringInput, scorers: Scorers | None = None) -> CompositeScore:
        """Return the reward of one response.

        Args:
            scorers: stand in for the composite's own, for this response.

        Raises:
            ScorerError: a scorer or a custom component failed; a component's fault is never a score.
        """
        shared = SharedScorers(scorers or self.scorers)
        async with self._admitted:
            scores = await self._components(item, shared)
        applying = [part for part in self._active if scores[part.name].applicable]
        weight = sum(part.weight for part in applying)
        total = sum(part.weight * scores[part.name].value for part in applying) / weight if weight else 0.0
        return CompositeScore(total, scores, self._record(item, total, scores, shared), shared.verdict)

    async def _components(self, item: ScoringInput, shared: SharedScorers) -> dict[str, ComponentScore]:
        local = [part for part in self._active if not part.component.needs]
        remote = [part for part in self._active if part.component.needs]
        # What asks no scorer never waits: it goes first, without a task of its own.
        scores = {part.name: _checked(part.name, await part.component(item, shared)) for part in local}
        # All are awaited before a fault is raised, so that verdicts on their way still reach the cache.
        calls = (part.component(item, shared) for part in remote)
        for part, outcome in zip(remote, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            scores[part.name] = _checked(part.name, outcome)
        return scores

    def _record(
        self, item: ScoringInput, total: float, scores: Mapping[str, ComponentScore], shared: SharedScorers
    ) -> dict[str, float]:
        """Make the flat record; the one place that says which keys a response has."""
        values = {part.name: NOT_APPLICABLE for part in self.parts}
        values |= {name: score.value for name, score in scores.items() if score.applicable}
        verdict, near = shared.verdict, shared.near
        says_near = scores["embed_accuracy"].details.get("near") if "embed_accuracy" in scores else None
        faults = float(getattr(self.scorers, "judge_faults", 0))
        new_faults, self._faults_seen = faults - self._faults_seen, faults
        said = parse_response(item.response).answer or item.response.strip()
        return {
            "score": total,
            "acc": next((values[name] for name in ACCURACIES if values.get(name, NOT_APPLICABLE) >= 0), total),
            **values,
            **{f"{part.name}{OK_SUFFIX}": 1.0 for part in self.parts if part.component.needs},
            "judge_seconds": shared.seconds["judge"],
            "embed_seconds": shared.seconds["similarity"],
            "judge_yes_probability": verdict.yes_probability if verdict else NOT_APPLICABLE,
            "embed_similarity": near.cosine if near else NOT_APPLICABLE,
            ANSWER_HASH: float(zlib.crc32((answer_key(said) or said).encode("utf-8", "surrogatepass"))),
            JUDGE_ASKED: float(verdict is not None),
            JUDGE_CACHED: float(verdict is not None and verdict.cached),
            JUDGE_SHARED: float(verdict is not None and verdict.coalesced),
            # From what both say, not from what they pay: a NO takes the embedder's pay away.
            DISAGREE: NOT_APPLICABLE if verdict is None or says_near is None else float(verdict.correct != says_near),
            JUDGE_FAULTS: new_faults,
        }

    def table(self) -> list[dict[str, Any]]:
        """Return one row a component: name, weight as configured, effective weight, options. JSON-able."""
        return [
            {"component": p.name, "weight": p.weight, "effective": p.effective, "options": dict(p.options)}
            for p in self.parts
        ]


def _checked(name: str, score: ComponentScore) -> ComponentScore:
    value = score.value
    if not score.applicable or (isinstance(value, (int, float)) and 0 <= value <= 1):  # which NaN is not
        return score
    raise ScorerError(f"The component {name!r} gave {value!r}, which is not in [0, 1].", f"Correct {name!r}.")
