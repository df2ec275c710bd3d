"""What a judge's share of YES says of the true share, given how often the judge errs (Rogan and Gladen, 1978)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Corrected:
    """The corrected share and its interval; None where the judge is too near chance for either to mean anything."""

    value: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None


def corrected_share(
    yes: int,
    n: int,
    true_yes: int,
    positives: int,
    true_no: int,
    negatives: int,
    apparent_se: float | None = None,
    level: float = 0.95,
) -> Corrected:
    """(p + specificity - 1) / (sensitivity + specificity - 1), with the delta method over all three sources of error.

    Args:
        yes, n: what the judge said of the items to be corrected.
        true_yes, positives: its YES among labelled pairs that are right.
        true_no, negatives: its NO among labelled pairs that are wrong.
        apparent_se: standard error of yes / n where the items are clustered; binomial otherwise.
    """
    if not (n and positives and negatives):
        return Corrected(None)
    from scipy.stats import norm

    share, sensitivity, specificity = yes / n, true_yes / positives, true_no / negatives
    youden = sensitivity + specificity - 1
    # A share of 0 or 1 in a small set has a variance all the same: one success and one failure are added for it.
    errors = [_variance(true_yes, positives), _variance(true_no, negatives)]
    if youden <= 0 or youden < 2 * math.sqrt(sum(errors)):
        return Corrected(None)
    value = (share + specificity - 1) / youden
    apparent = _variance(yes, n) if apparent_se is None else apparent_se**2
    se = math.sqrt(apparent + value**2 * errors[0] + (1 - value) ** 2 * errors[1]) / youden
    half = float(norm.ppf((1 + level) / 2)) * se
    return Corrected(_clip(value), _clip(value - half), _clip(value + half), se)


def _variance(successes: int, n: int) -> float:
    share = successes / n if 0 < successes < n else (successes + 1) / (n + 2)
    return share * (1 - share) / n


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
