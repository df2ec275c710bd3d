"""Bootstrap over clusters, for figures that have no formula: the average over tasks, and its difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.statistics.intervals import Estimate, cluster_sums

Group = tuple[Sequence[float], Sequence[str]]
"""Values of one task, and their clusters."""


def bootstrap_average(groups: Sequence[Group], draws: int = 4000, level: float = 0.95, seed: int = 0) -> Estimate:
    """Unweighted mean of the groups' means; clusters are drawn anew within each group.

    The interval is the percentile one. Empty groups have no mean and are left out of the average. A group of a
    single cluster cannot be drawn anew: then there is no interval.
    """
    kept = [(values, clusters) for values, clusters in groups if len(values)]
    n = sum(len(values) for values, _ in kept)
    if not kept:
        return Estimate(0, 0, None, level=level)
    rng = np.random.default_rng(seed)
    mean = float(np.mean([np.mean(values) for values, _ in kept]))
    total, count, drawable = np.zeros(draws), 0, True
    for values, clusters in kept:
        sums, sizes = cluster_sums(values, clusters)
        count += len(sums)
        drawable = drawable and len(sums) > 1
        total += _drawn_means(sums, sizes, draws, rng)
    if not drawable:
        return Estimate(n, count, mean, level=level)
    averages = total / len(kept)
    if float(np.ptp(averages)) == 0.0:  # every value of every group is the same: the draws say nothing
        return Estimate(n, count, mean, level=level)
    low, high = np.quantile(averages, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(n, count, mean, float(low), float(high), float(np.std(averages, ddof=1)), level)


def _drawn_means(sums: np.ndarray, sizes: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[draws] means of one group, its clusters drawn with replacement; a stretch of draws in memory at a time."""
    share, means = np.full(len(sums), 1 / len(sums)), []
    for start in range(0, draws, 200):
        # How often each cluster is drawn is multinomial: [200, G] counts instead of [200, n] indices.
        times = rng.multinomial(len(sums), share, size=min(200, draws - start))
        means.append((times @ sums) / (times @ sizes))
    return np.concatenate(means)
