"""What rules can tell of two answers: a plain clinical flip is never paid, a known synonym counts as near."""

from __future__ import annotations

from functools import lru_cache

from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.clinical_rules.verdict import RuleJudge


@lru_cache(maxsize=8192)
def contradiction(reference: str, candidate: str) -> str | None:
    """Which flip parts `candidate` from `reference`, e.g. `side: left / right`; None where none is plain to see."""
    return find_contradiction(reference, candidate)


@lru_cache(maxsize=8192)
def states_the_same(reference: str, candidate: str) -> bool:
    """Whether the shipped table of synonyms, and rules of spelling, order and units, call both the same."""
    return _rules().same(reference, candidate)


@lru_cache(maxsize=1)
def _rules() -> RuleJudge:
    return RuleJudge()
