"""The contradiction guard: finds answers that differ from the reference by a plain clinical flip."""

from __future__ import annotations


def contradiction(gold: str, answer: str) -> str | None:
    """Which flip parts `answer` from `gold`, e.g. `side: left / right`; None where none is plain to see."""
    return None
