"""Scorers whose findings are given: for `medix score --jsonl` rows that state them, and for trying things out."""

from __future__ import annotations

from dataclasses import dataclass

from medix.errors import ConfigError
from reward_fns.contracts import JudgeRequest, Scorers, Similarity, Verdict


@dataclass(frozen=True)
class AssumedScorers:
    """Implements `Scorers`. What is None is asked of `otherwise`.

    Raises:
        ConfigError: on a question that neither answers.
    """

    judge_says: bool | None = None
    cosine: float | None = None
    otherwise: Scorers | None = None

    async def judge(self, request: JudgeRequest) -> Verdict:
        if self.judge_says is not None:
            return Verdict(self.judge_says, raw="assumed", attempts=0)
        if self.otherwise is not None:
            return await self.otherwise.judge(request)
        fix = 'give --judge-url, or "assume_judge": "yes" or "no" in the row'
        raise ConfigError("a judge for an answer that is no exact match", "none", fix)

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        if self.cosine is not None:
            return Similarity(self.cosine)
        if self.otherwise is not None:
            return await self.otherwise.similarity(reference, candidate)
        raise ConfigError("an embedder", "none", 'give --embedder, or "assume_similarity": 0.83 in the row')
