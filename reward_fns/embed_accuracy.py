"""Pays for an answer near the reference in an embedder's space. Near is topic, not truth: hence guard and veto."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from medix.errors import ConfigError
from reward_fns.contracts import ComponentScore, Scorers, ScoringInput
from reward_fns.guard import contradiction, states_the_same
from reward_fns.llm_accuracy import judge_request
from reward_fns.reading import READINGS, Reading, ReadingName


@dataclass(frozen=True)
class EmbedAccuracy:
    """1 from the threshold up (`form: binary`) or the cosine itself, not below 0 (`form: cosine`).

    Raises:
        ConfigError: the threshold is outside [-1, 1].
    """

    reading: ReadingName = "strict"
    threshold: float = 0.45
    """Calibrated for the demo's embedder under guard and veto; docs/reward.md says how to do it for another."""
    form: Literal["binary", "cosine"] = "binary"
    guard: bool = True
    """Whether a plain contradiction of the reference is worth 0 however near the texts are."""
    veto: Literal["judge", "none"] = "judge"
    """Whether a judge's NO takes the pay away."""
    synonyms: bool = True
    """Whether an answer that the shipped synonym table calls the same counts as near, whatever the cosine."""
    question: bool = True
    """Whether the vetoing judge sees the question; set as for llm_accuracy, both then share one call."""
    aliases: bool = True
    """Whether it sees the other accepted wordings; set as for llm_accuracy too."""

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ConfigError("embed_accuracy.threshold in [-1, 1]", str(self.threshold), "set it to, e.g., 0.8")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"similarity", "judge"} if self.veto == "judge" else {"similarity"})

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        reading = READINGS[self.reading](item)
        if reading.candidate is None:
            return ComponentScore(0.0, details={"why": "no_answer"})
        if reading.exact:
            return ComponentScore(1.0, details={"why": "exact"})
        clash = contradiction(reading.reference, reading.candidate) if self.guard else None
        if clash:
            return ComponentScore(0.0, details={"why": "guard", "guard": clash})
        return await self._compare(item, reading, reading.candidate, scorers)

    async def _compare(self, item: ScoringInput, reading: Reading, candidate: str, scorers: Scorers) -> ComponentScore:
        if self.veto == "none":
            cosine, vetoed = (await scorers.similarity(reading.reference, candidate)).cosine, False
        else:
            request = judge_request(item, reading, self.question, self.aliases, "strict")
            near, verdict = await asyncio.gather(
                scorers.similarity(reading.reference, candidate), scorers.judge(request)
            )
            cosine, vetoed = near.cosine, not verdict.correct
        if vetoed:
            return ComponentScore(0.0, details={"why": "veto", "cosine": cosine})
        if self.synonyms and states_the_same(reading.reference, candidate):
            return ComponentScore(1.0, details={"why": "synonym", "cosine": cosine})
        value = float(cosine >= self.threshold) if self.form == "binary" else min(max(cosine, 0.0), 1.0)
        return ComponentScore(value, details={"why": "cosine", "cosine": cosine})
