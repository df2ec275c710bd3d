"""The released run's rule for which groups to train on: those whose mean lies strictly between two bounds.

With this reward the rule alone keeps groups without a signal and drops groups with one. Five wrong but well-formed
responses have the mean 0.145 and no spread: kept. Four right ones and one without its modality, (4 x 1.0 + 0.955) / 5 =
0.991, do have a spread: dropped at 0.99. veRL's own rule (`algorithm.filter_groups`, no spread) mends the first only.
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
    """`medix.filter`: a bound that is None does not bind."""

    low: float | None = None
    high: float | None = None

    @property
    def is_off(self) -> bool:
        return self.low is None and self.high is None

    def keeps(self, values: Sequence[float]) -> bool:
        """Whether low < mean < high for the metric's values in one group; a group of none is nobody's to drop."""
        if not values:
            return True
        mean = fmean(values)
        return (self.low is None or mean > self.low) and (self.high is None or mean < self.high)


def read_mean_band(raw: Mapping[str, Any] | None, filtering: bool) -> MeanBand:
    """The band from the plain mapping under `medix.filter`.

    Args:
        filtering: whether `algorithm.filter_groups.enable` is set; only then veRL replaces what is dropped.

    Raises:
        ConfigError: unknown option, wrong type, an empty band, or a band without group filtering.
    """
    band = read_options(MeanBand, raw, "medix.filter")
    if band.low is not None and band.high is not None and band.low >= band.high:
        raise ConfigError("medix.filter.low below medix.filter.high", f"{band.low} and {band.high}", "correct them")
    if not band.is_off and not filtering:
        raise ConfigError(
            "algorithm.filter_groups.enable=true with a band in medix.filter",
            "group filtering switched off",
            "choose algorithm=dapo, or set medix.filter.low=null medix.filter.high=null",
        )
    return band
