"""The released run's rule for which groups to train on: those whose mean lies strictly between two bounds.

Alone it keeps groups without a signal (five wrong but well-formed responses: mean 0.145, no spread) and drops groups
with one (four right, one without its modality: mean 0.991). veRL's own rule (no spread) mends the first only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from medix.errors import ConfigError
from medix.options import read_options


@dataclass(frozen=True)
class MeanBand:
    """The options under `medix.filter`: a bound that is None does not bind."""

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low is not below high")

    @property
    def is_off(self) -> bool:
        """Whether no bound is set."""
        return self.low is None and self.high is None

    def keeps(self, values: Sequence[float]) -> bool:
        """Return whether low < mean < high for the metric's values in one group. An empty group is kept."""
        mean = fmean(values) if values else 0.0
        return not values or ((self.low is None or mean > self.low) and (self.high is None or mean < self.high))


def read_mean_band(raw: Mapping[str, Any] | None, filtering: bool) -> MeanBand:
    """Return the band in the plain mapping under `medix.filter`, or raise a ConfigError.

    Args:
        filtering: whether `algorithm.filter_groups.enable` is set; only then veRL replaces what is dropped.
    """
    band = read_options(MeanBand, raw, "medix.filter")
    if not band.is_off and not filtering:
        fix = "Choose algorithm=dapo, or set medix.filter.low=null medix.filter.high=null."
        raise ConfigError("medix.filter has a bound, but algorithm.filter_groups is switched off.", fix)
    return band
