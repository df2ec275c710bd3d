"""What goes into a scorer and what comes out of it: the nouns that the reward, the service and the evaluation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from medix.errors import ScorerError
from medix.sample import NOT_APPLICABLE

VerdictParse = Literal["strict", "substring"]


@dataclass(frozen=True)
class JudgeRequest:
    """One answer to be compared with its reference. Texts are raw: neutralising and capping are the judge's work."""

    reference: str
    candidate: str
    question: str | None = None
    """None keeps the question from the judge, as the released reward does."""
    aliases: tuple[str, ...] = ()
    """Other accepted wordings of `reference`."""
    parse: VerdictParse = "strict"
    """`strict` holds the reply to YES or NO and takes nothing else. `substring` is the released rule, for reproduction
    only: a free reply of 4 tokens, YES anywhere in it, and a prompt file that need not have our delimited fields."""
    seed: int | None = None
    """The sampling seed of the request. None sends none."""
    template: str | None = None
    """A prompt of the component's own in place of `medix.scorer.judge.prompt`, for a question that is not "does the
    candidate state the reference?". It asks for YES or NO, and shows `{candidate}` and any of `{question}`,
    `{reference}`, `{accepted}` inside their delimiters, e.g. `[[CANDIDATE]]`, `{candidate}` and `[[/CANDIDATE]]` on
    three lines. The verdict is cached, shared and held like any other."""


@dataclass(frozen=True)
class Verdict:
    """A judge's finding. Only ever made from a reply that was understood: everything else is a ScorerError."""

    correct: bool
    raw: str = ""
    """The reply as it came."""
    yes_probability: float = NOT_APPLICABLE
    """P(YES) / (P(YES) + P(NO)) at the first token, or -1 where the server offers no log-probabilities."""
    latency_s: float = 0.0
    """Seconds of the call that found it; 0 for a cache hit."""
    cached: bool = False
    coalesced: bool = False
    """Whether this caller shared another caller's call in flight."""
    attempts: int = 1


@dataclass(frozen=True)
class Similarity:
    """Cosine of two texts in an embedder's space, in [-1, 1]."""

    cosine: float
    latency_s: float = 0.0


class RefusedSample(ScorerError):
    """The judge refuses this one sample for its content, and answers others: the sample can not be scored.

    `ScorerService` raises it under `medix.scorer.on_refusal: drop_group` only, and while at most
    `medix.scorer.max_refused_share` of the calls were refused. The reward manager catches it and gives the response no
    score; the replay buffer drops its whole group, counts it in a step metric and goes on. Under `on_refusal: stop`, or
    above that share, the service raises a plain ScorerError, which stops the run as every other fault of a scorer.
    `ScorerService.stats()["judge_refused"]` counts the refusals.
    """


class Scorers(Protocol):
    """What reward components may ask. Every fault of a scorer is raised as a ScorerError, never returned."""

    async def judge(self, request: JudgeRequest) -> Verdict: ...

    async def similarity(self, reference: str, candidate: str) -> Similarity: ...
