"""How far raters agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

Level = Literal["nominal", "interval"]


def cohen_kappa(a: Sequence[bool | int], b: Sequence[bool | int]) -> float | None:
    """Kappa of two raters on the same [n] cases; None where both only ever give one and the same label, or n is 0."""
    n = len(a)
    if n == 0:
        return None
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    left, right = Counter(a), Counter(b)
    expected = sum(left[label] * right[label] for label in left) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(ratings: Sequence[Sequence[float | None]], level: Level = "nominal") -> float | None:
    """Alpha of [raters][units] ratings, None for a missing one.

    Units with fewer than two ratings say nothing and are left out. None where nothing can be compared or all ratings
    are equal: without variation there is no agreement to speak of.
    """
    distance: Callable[[float, float], float] = _unequal if level == "nominal" else _squared
    units = [[value for value in unit if value is not None] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) >= 2]
    counts = Counter(value for unit in units for value in unit)
    n = sum(counts.values())
    expected = sum(counts[x] * counts[y] * distance(x, y) for x in counts for y in counts)
    if n < 2 or expected == 0:
        return None
    observed = sum(_disagreement(unit, distance) for unit in units)
    return 1 - (n - 1) * observed / expected


def _disagreement(unit: Sequence[float], distance: Callable[[float, float], float]) -> float:
    """Sum over ordered pairs of a unit's ratings, divided by their number less one."""
    counts = Counter(unit)
    total = sum(counts[x] * counts[y] * distance(x, y) for x in counts for y in counts)
    return total / (len(unit) - 1)


def _unequal(x: float, y: float) -> float:
    return float(x != y)


def _squared(x: float, y: float) -> float:
    return (x - y) ** 2
