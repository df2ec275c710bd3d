"""Two models on the same items: the difference, its interval, tests, and what the items could have shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.statistics.intervals import Estimate, cluster_sums, clustered_mean


@dataclass(frozen=True)
class PairedComparison:
    """B minus A on items that both have a score for."""

    difference: Estimate
    p_value: float | None
    """Sign-flip test over clusters, two-sided."""
    mcnemar_p: float | None
    """Exact, two-sided, items taken as independent; None unless every score is 0 or 1."""
    only_a: int
    """Items A has right (better) and B does not."""
    only_b: int
    detectable: float | None
    """Smallest true difference that these items would show in 80 % of repetitions, two-sided at 5 %."""


def compare_paired(a: Sequence[float], b: Sequence[float], clusters: Sequence[str], seed: int = 0) -> PairedComparison:
    """[n] scores of A and of B on the same items, and [n] cluster names."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    differences = second - first
    estimate = clustered_mean(list(differences), clusters)
    binary = bool(np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all())
    only_a, only_b = int((differences < 0).sum()), int((differences > 0).sum())
    return PairedComparison(
        estimate,
        sign_flip_p(differences, clusters, seed) if len(differences) else None,
        mcnemar_exact_p(only_a, only_b) if binary and len(differences) else None,
        only_a,
        only_b,
        minimum_detectable_difference(estimate),
    )


def mcnemar_exact_p(only_a: int, only_b: int) -> float:
    """Two-sided exact p of the discordant pairs under a fair coin; 1 where there are none."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def sign_flip_p(differences: Sequence[float] | np.ndarray, clusters: Sequence[str], seed: int = 0) -> float:
    """Two-sided p of the summed difference when each cluster's sign is a fair coin.

    Exact over all sign patterns up to 16 clusters that differ, by 20,000 random ones beyond.
    """
    sums, _ = cluster_sums(list(differences), clusters)
    sums = sums[sums != 0]
    observed = abs(float(sums.sum()))
    if len(sums) == 0:
        return 1.0
    if len(sums) <= 16:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))[None, :] & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ sums) >= observed - 1e-9))
    rng, hits, draws = np.random.default_rng(seed), 0, 20_000
    for _ in range(20):
        signs = rng.choice((-1.0, 1.0), size=(draws // 20, len(sums)))
        hits += int((np.abs(signs @ sums) >= observed - 1e-9).sum())
    return (hits + 1) / (draws + 1)


def minimum_detectable_difference(estimate: Estimate, power: float = 0.8) -> float | None:
    """(z_0.975 + z_power) standard errors, with t in place of z for the clusters there are."""
    if estimate.se is None or estimate.clusters < 2:
        return None
    from scipy.stats import t

    degrees = estimate.clusters - 1
    return float((t.ppf(0.975, degrees) + t.ppf(power, degrees)) * estimate.se)


def items_needed(difference: float, standard_deviation: float, power: float = 0.8) -> int:
    """Independent paired items for `difference` to be found with `power`, two-sided at 5 %."""
    from scipy.stats import norm

    z = float(norm.ppf(0.975) + norm.ppf(power))
    return math.ceil((z * standard_deviation / difference) ** 2)
