"""Which slices of a volume are trained on, which are held out, and which lie unused between."""

from __future__ import annotations

from collections.abc import Iterator


def slab_split(depth: int, period: int, held_out: int, gap: int, low: int = 0) -> Iterator[tuple[int, str]]:
    """(slice, split) for the slices `low`..`depth`-1. In each `period` slices the last but `gap` ones are held out,
    with `gap` slices left out on either side of them."""
    first = period - gap - held_out
    for z in range(low, depth):
        place = (z - low) % period
        if place < first - gap:
            yield z, "train"
        elif first <= place < first + held_out:
            yield z, "test"
