"""A reward component of your own: short answers are worth more.

    medix score "<X_RAY><thinking>..</thinking><answer>pneumonia</answer>" --reference pneumonia --modality X_RAY \
        '+medix.reward.components.brevity={path: examples/rewards/brevity.py:brevity, weight: 0.1, words: 20}'

The same override works on the training command line. Nothing has to be registered: name the file and the function.
"""

from __future__ import annotations

from medix.response import parse_response
from reward_fns import ScoringInput


def brevity(item: ScoringInput, words: int = 20) -> float:
    """Return 1 for an answer of at most `words` words, then falling as words / length; 0 without an answer."""
    answer = parse_response(item.response).scorable_answer
    if answer is None:
        return 0.0
    return min(1.0, words / len(answer.split()))
