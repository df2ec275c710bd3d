"""One judge: several independent votes on a case, each its own conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.backends.endpoint import FATAL_KINDS, failure_kind
from evaluation.judging.rubrics import Case, RubricName, Vote, prompt_text, read_vote, sampling
from medix.errors import ConfigError
from reward_fns.scorers.chat import ChatClient, user_message
from reward_fns.scorers.endpoints import EndpointError, EndpointOptions


@dataclass(frozen=True)
class JudgeOptions:
    """Which judge, and how often it is asked."""

    model: str
    endpoint: EndpointOptions
    votes: int = 1
    temperature: float | None = None
    """None: 0 for one vote, 0.7 for several, so that they are independent readings and not one repeated."""
    max_tokens: int = 1024
    deadline_s: float = 300.0
    tries: int = 2
    """Calls for one vote when the reply is not of the form."""
    sees_images: bool = False

    def __post_init__(self) -> None:
        if self.votes < 1 or self.votes % 2 == 0:
            raise ConfigError("an odd number of votes", str(self.votes), "e.g. --votes 3")

    @property
    def sampled_at(self) -> float:
        return self.temperature if self.temperature is not None else (0.0 if self.votes == 1 else 0.7)

    def settings(self) -> dict[str, Any]:
        """What of a judge decides its judgements; not where it is."""
        return {
            "model": self.model,
            "votes": self.votes,
            "temperature": self.sampled_at,
            "sees_images": self.sees_images,
        }


@dataclass(frozen=True)
class Judgement:
    """A judge's finding on a case: a score in [0, 1], or None and the reason. A failure is never a score."""

    score: float | None
    votes: tuple[Vote, ...]
    error: dict[str, str] | None = None
    fatal: bool = False
    usage: dict[str, int] = field(default_factory=dict)
    latency_s: float = 0.0


class RubricJudge:
    """Use from one event loop; `await aclose()` at the end."""

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options
        self.client = ChatClient(options.endpoint, options.model, where="--judge-url")
        self._constrained: dict[str, bool] = {}

    async def judge(self, rubric: RubricName, case: Case, images: Sequence[bytes] = ()) -> Judgement:
        """Ask for all votes at once; a majority decides a question, the mean a report."""
        text = prompt_text(rubric, case)
        shown = images if self.options.sees_images else ()
        outcomes = await asyncio.gather(*(self._vote(rubric, text, shown, n) for n in range(self.options.votes)))
        votes = tuple(vote for vote, _, _, _ in outcomes if vote is not None)
        errors = [error for _, error, _, _ in outcomes if error is not None]
        usage: dict[str, int] = {}
        for _, _, counts, _ in outcomes:
            usage = {name: usage.get(name, 0) + counts.get(name, 0) for name in {*usage, *counts}}
        score = _combine(rubric, votes, self.options.votes)
        latency_s = max(seconds for _, _, _, seconds in outcomes)
        if score is not None:
            return Judgement(score, votes, usage=usage, latency_s=latency_s)
        error = errors[0] if errors else {"kind": "tie", "detail": "no majority"}
        return Judgement(None, votes, error, all(e["kind"] in FATAL_KINDS for e in errors), usage, latency_s)

    async def _vote(
        self, rubric: RubricName, text: str, images: Sequence[bytes], number: int
    ) -> tuple[Vote | None, dict[str, str] | None, dict[str, int], float]:
        usage: dict[str, int] = {}
        raw, seconds = "", 0.0
        for attempt in range(self.options.tries):
            try:
                reply = await self._complete(rubric, text, images, number + 1000 * attempt)
            except EndpointError as error:
                return None, {"kind": failure_kind(error), "detail": error.found[:300]}, usage, seconds
            usage = {name: usage.get(name, 0) + count for name, count in reply.usage.items()}
            raw, seconds = reply.text, seconds + reply.latency_s
            vote = read_vote(rubric, raw)
            if vote is not None:
                return vote, None, usage, seconds
        return None, {"kind": "unparsed", "detail": raw[:300]}, usage, seconds

    async def _complete(self, rubric: RubricName, text: str, images: Sequence[bytes], seed: int) -> Any:
        """One call; a server that refuses constrained decoding is asked without it from then on."""
        o = self.options
        constrained = self._constrained.get(rubric, True)
        message = user_message(text, images)
        try:
            asked = sampling(rubric, constrained, o.sampled_at, seed, o.max_tokens)
            return await self.client.complete(message, asked, o.deadline_s)
        except EndpointError as error:
            if not constrained or error.status not in (400, 422) or failure_kind(error) == "context_overflow":
                raise
        reply = await self.client.complete(
            message, sampling(rubric, False, o.sampled_at, seed, o.max_tokens), o.deadline_s
        )
        self._constrained[rubric] = False
        return reply

    async def aclose(self) -> None:
        await self.client.aclose()


def _combine(rubric: RubricName, votes: Sequence[Vote], asked: int) -> float | None:
    """Majority of the votes asked for, not of those that came; for reports the mean, of more than half of them."""
    if 2 * len(votes) <= asked:
        return None
    if rubric == "report":
        return sum(vote.score for vote in votes) / len(votes)
    yes = sum(vote.score for vote in votes)
    return 1.0 if 2 * yes > asked else 0.0 if 2 * (len(votes) - yes) > asked else None
