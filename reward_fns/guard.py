"""What rules can tell of two answers: a plain clinical flip is never paid, a known synonym counts as near."""

from __future__ import annotations

from functools import lru_cache

from medix.rule_judge.contradiction import find_contradiction
from medix.rule_judge.verdict import RuleJudge


@lru_cache(maxsize=8192)
def contradiction(gold: str, answer: str) -> str | None:
    """Which flip parts `answer` from `gold`, e.g. `side: left / right`; None where none is plain to see."""
    return find_contradiction(gold, answer)


@lru_cache(maxsize=8192)
def states_the_same(gold: str, answer: str) -> bool:
    """Whether the shipped table of synonyms, and rules of spelling, order and units, call both the same."""
    return _rules().same(gold, answer)


@lru_cache(maxsize=1)
def _rules() -> RuleJudge:
    return RuleJudge()
