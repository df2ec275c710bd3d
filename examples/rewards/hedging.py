"""A component with options: a class that is made once and then called for each response.

'+medix.reward.components.hedging={path: examples/rewards/hedging.py:Hedging, weight: 0.05, most: 1}'
"""

from __future__ import annotations

from collections.abc import Sequence

from medix.response import parse_response
from reward_fns import ComponentScore, ScoringInput


class Hedging:
    """Pays for an answer with at most so many of the words that hedge."""

    def __init__(self, most: int = 0, words: Sequence[str] = ("or", "possibly", "probably", "maybe", "versus")) -> None:
        self.most, self.words = most, frozenset(words)

    def __call__(self, item: ScoringInput) -> ComponentScore:
        answer = parse_response(item.response).scorable_answer or ""
        found = [word for word in answer.lower().split() if word in self.words]
        return ComponentScore(float(bool(answer) and len(found) <= self.most), details={"hedges": found})
