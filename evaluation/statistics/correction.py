"""What a judge's verdicts say of the true share, given how often the judge errs (Rogan and Gladen, 1978)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.statistics.intervals import clustered_mean


@dataclass(frozen=True)
class JudgeErrors:
    """Counts of a calibration."""

    true_yes: int
    positives: int
    """Labelled pairs that are right; the judge said YES to `true_yes` of them."""
    true_no: int
    negatives: int
    """Labelled pairs that are wrong; the judge said NO to `true_no` of them."""

    @property
    def sensitivity(self) -> float:
        return self.true_yes / self.positives

    @property
    def specificity(self) -> float:
        return self.true_no / self.negatives

    @property
    def variances(self) -> tuple[float, float]:
        """Of the sensitivity and of the specificity."""
        return _variance(self.true_yes, self.positives), _variance(self.true_no, self.negatives)

    @property
    def informative(self) -> bool:
        """Whether the judge is better than chance by more than two standard errors."""
        if not (self.positives and self.negatives):
            return False
        return self.sensitivity + self.specificity - 1 > 2 * math.sqrt(sum(self.variances))


@dataclass(frozen=True)
class Corrected:
    """The corrected share and its interval; None where the judge is too near chance for either to mean anything."""

    value: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None


def corrected_mean(
    scores: Sequence[float], judged: Sequence[bool], clusters: Sequence[str], errors: JudgeErrors, level: float = 0.95
) -> Corrected:
    """Mean of [n] scores of 0 or 1 of which the `judged` ones are a judge's, the others certain.

    A judged score s counts as (s + specificity - 1) / (sensitivity + specificity - 1), which is right on average. The
    interval (delta method) holds the spread of the items, by cluster, and the uncertainty of the judge's two rates.
    """
    if not len(scores) or (any(judged) and not errors.informative):
        return Corrected(None)
    from scipy.stats import norm

    youden = errors.sensitivity + errors.specificity - 1 if any(judged) else 1.0
    shift = errors.specificity - 1 if any(judged) else 0.0
    values = [(s + shift) / youden if by_judge else s for s, by_judge in zip(scores, judged, strict=True)]
    estimate = clustered_mean(values, clusters)
    mean = sum(values) / len(values)
    spread = estimate.se if estimate.se is not None else math.sqrt(_variance(int(sum(scores)), len(scores))) / youden
    variance = spread**2
    if any(judged):
        weight = sum(judged) / len(judged)
        share = sum(value for value, by_judge in zip(values, judged, strict=True) if by_judge) / sum(judged)
        of_sensitivity, of_specificity = errors.variances
        variance += (weight / youden) ** 2 * (share**2 * of_sensitivity + (1 - share) ** 2 * of_specificity)
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(variance)
    return Corrected(_clip(mean), _clip(mean - half), _clip(mean + half), math.sqrt(variance))


def _variance(successes: int, n: int) -> float:
    """Of a share; where it is 0 or 1, of the share with one success and one failure added: it is not known exactly."""
    share = successes / n if 0 < successes < n else (successes + 1) / (n + 2)
    return share * (1 - share) / n


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
