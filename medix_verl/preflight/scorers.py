"""Do the judge and the embedder answer, and do they make sense?"""

from __future__ import annotations

import asyncio
from typing import Any

from medix.errors import ConfigError, ScorerError
from medix_verl.preflight.check import Check
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest, Scorers

FIXED_VERDICTS = (
    ("Which organ is shown?", "liver", "liver.", True),
    ("Which organ is shown?", "liver", "spleen", False),
    ("Which side is affected?", "left lung", "right lung", False),
    ("Is there a fracture?", "no fracture", "fracture", False),
    ("Which modality is this?", "magnetic resonance imaging", "MRI", True),
    ("What is the diagnosis?", "myocardial infarction", "heart attack", True),
)
"""(question, reference, answer, right?): a judge that misses one of these is not fit to pay a policy."""


def check_scorers(scorer: dict[str, Any], needs: frozenset[str]) -> list[Check]:
    """Probe what the composite needs (`judge`, `similarity`); a scorer of weight 0 is not asked."""
    return asyncio.run(_check_scorers(scorer, needs))


async def _check_scorers(scorer: dict[str, Any], needs: frozenset[str]) -> list[Check]:
    # A probe must say "unreachable" within seconds: no cache that could answer for it, and no waiting.
    judge = {**scorer["judge"], "retries": 1, "timeout_s": 20.0}
    service = ScorerService({**scorer, "judge": judge, "cache": {}, "hold_limit_s": 0.0})
    checks = []
    try:
        if "judge" in needs:
            checks.append(await _judge_check(service, judge))
        if "similarity" in needs:
            checks.append(await _embedder_check(service, scorer["embedder"]))
    finally:
        await service.aclose()
    return checks


async def wrong_verdicts(scorers: Scorers) -> list[str]:
    """Ask for the fixed verdicts; what came out wrong, in words.

    Raises:
        ScorerError: there was no verdict to be had.
    """
    wrong = []
    for question, reference, answer, right in FIXED_VERDICTS:
        verdict = await scorers.judge(JudgeRequest(reference=reference, candidate=answer, question=question))
        if verdict.correct != right:
            wrong.append(f"{answer!r} for {reference!r}")
    return wrong


async def _judge_check(service: ScorerService, judge: dict[str, Any]) -> Check:
    name = f"judge {judge['model']}"
    try:
        wrong = await wrong_verdicts(service)
    except (ScorerError, ConfigError) as error:
        remedy = f"{error.fix}; start one with `python -m examples.rule_judge`, or set JUDGE_URL= to yours"
        return Check(name, "fail", f"{', '.join(judge['urls'])}: {error.found}", remedy)
    if wrong:
        return Check(name, "fail", f"wrong on {', '.join(wrong)}", "use a stronger judge: its mistakes are the reward")
    number = len(FIXED_VERDICTS)
    return Check(name, "pass", f"{number} of {number} fixed verdicts right at {', '.join(judge['urls'])}")


async def _embedder_check(service: ScorerService, embedder: dict[str, Any]) -> Check:
    name = f"embedder {embedder.get('model', '')}"
    try:
        same = (await service.similarity("pneumonia", "pneumonia ")).cosine
        other = (await service.similarity("pneumonia", "tax return")).cosine
    except (ScorerError, ConfigError) as error:
        return Check(name, "fail", error.found, error.fix)
    if same < 0.99 or other > same - 0.2:
        found = f"cosine {same:.2f} to itself and {other:.2f} to an unrelated text"
        return Check(name, "fail", found, "use another embedder: this one does not tell texts apart")
    return Check(name, "pass", f"cosine {same:.2f} to itself, {other:.2f} to an unrelated text")
