"""Pays for an answer near the reference in an embedder's space. Near is topic, not truth: hence guard and veto."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reward_fns.clinical_rules.rule_judge import states_the_same
from reward_fns.component import ComponentScore, ScoringInput
from reward_fns.llm_accuracy import decide_without_judge, judge_request
from reward_fns.reading import READINGS, ReadingName
from reward_fns.scorers.types import Scorers, VerdictParse


@dataclass(frozen=True)
class EmbedAccuracy:
    """1 from the threshold up (`form: binary`) or the cosine itself, not below 0 (`form: cosine`)."""

    verdict: ClassVar[VerdictParse] = "strict"
    """How the vetoing judge's reply is read."""
    reading: ReadingName = "strict"
    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.45
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

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"similarity", "judge"} if self.veto == "judge" else {"similarity"})

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        reading = READINGS[self.reading](item)
        decided = decide_without_judge(reading, self.guard)
        if decided is not None or reading.candidate is None:
            return decided or ComponentScore(0.0)
        pair = (reading.reference, reading.candidate)
        verdict = None
        if self.veto == "judge":
            request = judge_request(item, reading, self.question, self.aliases, self.verdict)
            near, verdict = await asyncio.gather(scorers.similarity(*pair), scorers.judge(request))
        else:
            near = await scorers.similarity(*pair)
        found = {"cosine": near.cosine, "near": near.cosine >= self.threshold}
        if verdict is not None and not verdict.correct:
            return ComponentScore(0.0, details={"why": "veto", **found})
        if self.synonyms and states_the_same(*pair):
            return ComponentScore(1.0, details={"why": "synonym", **found})
        value = float(found["near"]) if self.form == "binary" else min(max(near.cosine, 0.0), 1.0)
        return ComponentScore(value, details={"why": "cosine", **found})
