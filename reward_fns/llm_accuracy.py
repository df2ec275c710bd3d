"""Pays for an answer that a judge finds to state the same as the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.component import ComponentScore, ScoringInput
from reward_fns.reading import READINGS, Reading, ReadingName
from reward_fns.scorers.types import JudgeRequest, Scorers, VerdictParse


@dataclass(frozen=True)
class LlmAccuracy:
    """1 for a judge's YES, else 0. The same answer is 1 without a call; no answer that may be paid is 0 without one."""

    needs: ClassVar[frozenset[str]] = frozenset({"judge"})
    reading: ReadingName = "strict"
    question: bool = True
    """Whether the judge sees the question."""
    aliases: bool = True
    """Whether the judge sees the other accepted wordings."""
    verdict: VerdictParse = "strict"
    guard: bool = True
    """Whether a plain contradiction (side, number, negation, stage ...) is 0 whatever the judge would say."""

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        reading = READINGS[self.reading](item)
        decided = decide_without_judge(reading, self.guard)
        if decided is not None:
            return decided
        verdict = await scorers.judge(judge_request(item, reading, self.question, self.aliases, self.verdict))
        return ComponentScore(float(verdict.correct), details={"why": "judge"})


def decide_without_judge(reading: Reading, guard: bool) -> ComponentScore | None:
    """Return the score of an answer that no scorer has to weigh: none, the reference itself, a plain contradiction."""
    if reading.candidate is None:
        return ComponentScore(0.0, details={"why": "no_answer", "problems": list(reading.problems)})
    if reading.exact:
        return ComponentScore(1.0, details={"why": "exact"})
    clash = find_contradiction(reading.reference, reading.candidate) if guard else None
    return ComponentScore(0.0, details={"why": "guard", "guard": clash}) if clash else None


def judge_request(
    item: ScoringInput, reading: Reading, question: bool, aliases: bool, parse: VerdictParse
) -> JudgeRequest:
    """Return what a judge is asked about a response whose answer is not None."""
    shown = item.question if question and item.question else None
    return JudgeRequest(reading.reference, reading.candidate or "", shown, item.aliases if aliases else (), parse)
