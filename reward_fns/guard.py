"""The contradiction guard: what the rules of `medix.rule_judge` call a plain clinical flip is never paid."""

from __future__ import annotations

from functools import lru_cache

from medix.rule_judge.contradiction import find_contradiction


@lru_cache(maxsize=8192)
def contradiction(gold: str, answer: str) -> str | None:
    """Which flip parts `answer` from `gold`, e.g. `side: left / right`; None where none is plain to see."""
    return find_contradiction(gold, answer)
