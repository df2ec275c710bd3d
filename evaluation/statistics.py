"""Intervals, agreement, paired tests and the correction for a judge's errors.

Items that share an image, a passage or a patient are not independent, so every interval is by cluster. The functions
take plain sequences; scipy gives the distributions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Group = tuple[Sequence[float], Sequence[str]]
"""Values of one task, and the cluster of each."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval. Fields are None where the data does not determine them."""

    n: int
    clusters: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    method: str = ""
    """How the interval was made: `clustered t`, `wilson`, or `sum of task variances`."""

    def within(self, low: float = 0.0, high: float = 1.0) -> Estimate:
        """Return the estimate with its interval cut to what is possible, e.g. [0, 1] for an accuracy."""
        if self.low is None or self.high is None:
            return self
        return replace(self, low=max(low, self.low), high=min(high, self.high))

    def as_json(self) -> dict[str, Any]:
        """Return the fields with their numbers rounded to six places, as the result files hold them."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in vars(self).items()}


def cluster_sums(values: Sequence[float], clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return [G] sums and [G] sizes, one for each cluster."""
    _, place = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return np.bincount(place, weights=np.asarray(values, dtype=float)), np.bincount(place).astype(float)


def clustered_mean(values: Sequence[float], clusters: Sequence[str], signed: bool = False) -> Estimate:
    """Return the mean of [n] values with the cluster-robust interval: Student's t with G - 1 degrees of freedom.

    The variance is G/(G-1) * sum of squared cluster sums of residuals / n^2, which is the sandwich estimate of a
    regression on a constant. Where all values are equal, that is zero and says nothing: the interval is then
    Wilson's for G trials if the values are 0 or 1, and absent otherwise.

    Args:
        signed: the values are differences, for which Wilson's interval of a share would have one side only.
    """
    n = len(values)
    if n == 0:
        return Estimate(0, 0, None)
    sums, sizes = cluster_sums(values, clusters)
    groups, mean = len(sums), float(np.mean(values))
    if float(np.ptp(np.asarray(values, dtype=float))) == 0.0:
        if signed or mean not in (0.0, 1.0):
            return Estimate(n, groups, mean)
        from scipy.stats import binomtest

        interval = binomtest(int(mean) * groups, groups).proportion_ci(method="wilson")
        return Estimate(n, groups, mean, float(interval.low), float(interval.high), method="wilson")
    if groups < 2:
        return Estimate(n, groups, mean)
    from scipy.stats import t

    residuals = sums - mean * sizes
    se = math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / n
    half = float(t.ppf(0.975, groups - 1)) * se
    return Estimate(n, groups, mean, mean - half, mean + half, se, "clustered t")


def average_of_means(groups: Sequence[Group], signed: bool = False) -> Estimate:
    """Return the unweighted mean of the tasks' means; tasks are independent, so their variances add.

    Empty tasks have no mean and are left out. The average of one task is that task's own estimate. The degrees of
    freedom of Student's t are Welch and Satterthwaite's. A task in which every item is right (or wrong) counts with
    the variance of a share with one success and one failure added. There is no interval where a task has no variance:
    a single cluster, or equal grades throughout.
    """
    means = [clustered_mean(*group, signed) for group in groups if len(group[0])]
    if len(means) < 2:
        return means[0] if means else Estimate(0, 0, None)
    mean = float(np.mean([task.mean for task in means]))
    total = Estimate(sum(task.n for task in means), sum(task.clusters for task in means), mean)
    variances = [task.se**2 if task.se is not None else _smoothed(task) for task in means]
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(means) or any(task.clusters < 2 for task in means):
        return total
    from scipy.stats import t

    freedom = sum(known) ** 2 / sum(v**2 / (task.clusters - 1) for v, task in zip(known, means, strict=True))
    se = math.sqrt(sum(known)) / len(means)
    half = float(t.ppf(0.975, freedom)) * se
    return replace(total, low=mean - half, high=mean + half, se=se, method="sum of task variances")


def _smoothed(task: Estimate) -> float | None:
    share = abs(task.mean or 0.0)
    return _variance(round(share) * task.clusters, task.clusters) if share in (0.0, 1.0) else None


def _variance(successes: int, n: int) -> float:
    """Variance of a share; where it is 0 or 1, of the share with one success and one failure added."""
    share = successes / n if 0 < successes < n else (successes + 1) / (n + 2)
    return share * (1 - share) / n


def cohen_kappa(a: Sequence[bool | int], b: Sequence[bool | int]) -> float | None:
    """Return kappa of two raters on the same [n] cases; None if n is 0 or both only ever give the same one label."""
    n = len(a)
    if n == 0:
        return None
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    left, right = Counter(a), Counter(b)
    expected = sum(left[label] * right[label] for label in left) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(
    ratings: Sequence[Sequence[float | None]], level: Literal["nominal", "interval"] = "nominal"
) -> float | None:
    """Return alpha of [raters][units] ratings; a missing rating is None.

    Units with fewer than two ratings are left out. The result is None if nothing can be compared or all ratings are
    equal: without variation there is no agreement to measure.
    """

    def distances(counts: Counter[float]) -> float:
        power = 0 if level == "nominal" else 2
        return sum(counts[x] * counts[y] * abs(x - y) ** power for x in counts for y in counts if x != y)

    rated = [[value for value in unit if value is not None] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in rated if len(unit) >= 2]
    counts = Counter(value for unit in units for value in unit)
    expected = distances(counts)
    if expected == 0:
        return None
    observed = sum(distances(Counter(unit)) / (len(unit) - 1) for unit in units)
    return 1 - (counts.total() - 1) * observed / expected


@dataclass(frozen=True)
class PairedComparison:
    """B minus A on items that both have a score for."""

    difference: Estimate
    p_value: float | None
    """Sign-flip test over clusters, two-sided."""
    mcnemar_p: float | None
    """Exact, two-sided, items taken as independent; None unless every score is 0 or 1."""
    only_a: int
    """Items on which A has the higher score."""
    only_b: int
    detectable: float | None
    """Smallest true difference that these items would show in 80 % of repetitions, two-sided at 5 %."""


def compare_paired(a: Sequence[float], b: Sequence[float], clusters: Sequence[str]) -> PairedComparison:
    """Compare [n] scores of A and of B on the same items, with [n] cluster names."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    differences = second - first
    estimate = clustered_mean(list(differences), clusters, signed=True)
    binary = bool(np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all())
    only_a, only_b = int((differences < 0).sum()), int((differences > 0).sum())
    return PairedComparison(
        estimate,
        sign_flip_p(list(differences), clusters) if len(differences) else None,
        mcnemar_exact_p(only_a, only_b) if binary and len(differences) else None,
        only_a,
        only_b,
        minimum_detectable_difference(estimate),
    )


def mcnemar_exact_p(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p of the discordant pairs under a fair coin; 1 if there are none."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def sign_flip_p(differences: Sequence[float], clusters: Sequence[str]) -> float:
    """Return the two-sided p of the summed difference when each cluster's sign is a fair coin.

    Exact over all sign patterns up to 14 clusters that differ, by 20,000 random ones beyond.
    """
    sums, _ = cluster_sums(differences, clusters)
    sums = sums[sums != 0]
    if len(sums) < 2:
        return 1.0  # Both signs of a single cluster are as far from zero.
    from scipy.stats import permutation_test

    rng = np.random.default_rng(0)
    draws = {"n_resamples": 20_000, "batch": 500, "vectorized": True}
    return float(permutation_test((sums,), np.sum, permutation_type="samples", rng=rng, **draws).pvalue)


def minimum_detectable_difference(estimate: Estimate, power: float = 0.8) -> float | None:
    """Return (t_0.975 + t_power) standard errors, with G - 1 degrees of freedom."""
    if estimate.se is None or estimate.clusters < 2:
        return None
    from scipy.stats import t

    degrees = estimate.clusters - 1
    return float((t.ppf(0.975, degrees) + t.ppf(power, degrees)) * estimate.se)


@dataclass(frozen=True)
class JudgeErrors:
    """A judge's verdicts on labelled pairs: on those that are right, and on those that are wrong."""

    true_yes: int
    positives: int
    true_no: int
    negatives: int

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1; 0 if either is unknown or the sum is within two standard errors of chance."""
        if not (self.positives and self.negatives):
            return 0.0
        value = self.true_yes / self.positives + self.true_no / self.negatives - 1
        return value if value > 2 * math.sqrt(sum(self.variances)) else 0.0

    @property
    def variances(self) -> tuple[float, float]:
        """Variances of the sensitivity and of the specificity."""
        return _variance(self.true_yes, self.positives), _variance(self.true_no, self.negatives)


def corrected_mean(
    scores: Sequence[float], judged: Sequence[bool], clusters: Sequence[str], errors: JudgeErrors
) -> Estimate:
    """Correct the mean of [n] scores of 0 or 1 for the judge's known errors (Rogan and Gladen, 1978).

    A score by the judge counts as (s + specificity - 1) / (sensitivity + specificity - 1), which is right on average;
    the others are certain. The interval (delta method) holds the spread of the items, by cluster, and the uncertainty
    of the judge's two rates. There is no mean where the judge is too near chance for it to mean anything.
    """
    plain = clustered_mean(scores, clusters)
    by_judge = sum(judged)
    if not len(scores) or (by_judge and not errors.youden):
        return Estimate(plain.n, plain.clusters, None)
    from scipy.stats import norm

    youden = errors.youden if by_judge else 1.0
    shift = errors.true_no / errors.negatives - 1 if by_judge else 0.0
    values = [(s + shift) / youden if of_judge else s for s, of_judge in zip(scores, judged, strict=True)]
    estimate = clustered_mean(values, clusters)
    mean = sum(values) / len(values)
    spread = estimate.se if estimate.se is not None else math.sqrt(_variance(int(sum(scores)), len(scores))) / youden
    variance = spread**2
    if by_judge:
        share = sum(value for value, of_judge in zip(values, judged, strict=True) if of_judge) / by_judge
        of_sensitivity, of_specificity = errors.variances
        weight = by_judge / len(judged) / youden
        variance += weight**2 * (share**2 * of_sensitivity + (1 - share) ** 2 * of_specificity)
    half = float(norm.ppf(0.975)) * math.sqrt(variance)
    low, mean, high = (min(1.0, max(0.0, bound)) for bound in (mean - half, mean, mean + half))
    return replace(estimate, mean=mean, low=low, high=high, se=math.sqrt(variance), method="Rogan and Gladen")


def percent(value: float | None) -> str:
    """Return `12.3 %`, or a dash if there is no figure."""
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Return `10.0 to 14.6 %`, or a dash."""
    return "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def with_interval(e: Mapping[str, Any]) -> str:
    """Return the mean and the interval of an estimate's JSON form."""
    return "-" if e["mean"] is None else f"{percent(e['mean'])} ({interval(e['low'], e['high'])})"
