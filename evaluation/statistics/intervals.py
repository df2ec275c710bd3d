"""A mean with its interval, where items that share an image or a passage are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval at `level`. Fields are None where the data does not determine them."""

    n: int
    clusters: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    level: float = 0.95


def cluster_sums(values: Sequence[float], clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """[G] sums and [G] sizes, one for each cluster."""
    _, place = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return np.bincount(place, weights=np.asarray(values, dtype=float)), np.bincount(place).astype(float)


def clustered_mean(values: Sequence[float], clusters: Sequence[str], level: float = 0.95) -> Estimate:
    """Mean of [n] values with the cluster-robust interval: Student's t with G - 1 degrees of freedom.

    The variance is G/(G-1) * sum of squared cluster sums of residuals / n^2, which is the sandwich estimate of a
    regression on a constant. Where all values are equal, that is zero and says nothing: the interval is then
    Wilson's for G trials if the values are 0 or 1, and absent otherwise.
    """
    n = len(values)
    if n == 0:
        return Estimate(0, 0, None, level=level)
    sums, sizes = cluster_sums(values, clusters)
    groups, mean = len(sums), float(np.mean(values))
    if float(np.ptp(np.asarray(values, dtype=float))) == 0.0:
        low, high = wilson(mean, groups, level) if mean in (0.0, 1.0) else (None, None)
        return Estimate(n, groups, mean, low, high, None, level)
    if groups < 2:
        return Estimate(n, groups, mean, level=level)
    from scipy.stats import t

    residuals = sums - mean * sizes
    se = math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / n
    half = float(t.ppf((1 + level) / 2, groups - 1)) * se
    return Estimate(n, groups, mean, mean - half, mean + half, se, level)


def within(estimate: Estimate, low: float = 0.0, high: float = 1.0) -> Estimate:
    """The interval cut to what is possible, e.g. [0, 1] for an accuracy."""
    if estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(
        estimate.n,
        estimate.clusters,
        estimate.mean,
        max(low, estimate.low),
        min(high, estimate.high),
        estimate.se,
        estimate.level,
    )


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent trials."""
    from scipy.stats import norm

    z = float(norm.ppf((1 + level) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
