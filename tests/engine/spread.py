"""A reward component for runs of a few steps: pays by the length of a response, so that the rewards of a group differ.

A model with thirty warm-start steps may earn nothing in a whole step; without any spread nothing is trained.
"""

from __future__ import annotations

from reward_fns import ScoringInput


def spread(item: ScoringInput) -> float:
    """Return the last digit of the number of characters, as tenths."""
    return len(item.response) % 10 / 10
