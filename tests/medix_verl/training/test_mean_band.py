"""The released run's filter rule, on groups whose reward is known."""

from __future__ import annotations

import pytest

from medix.errors import ConfigError
from medix_verl.mean_band import MeanBand, read_mean_band

# 0.5175 judge + 0.3375 embedder + 0.045 modality + 0.10 format.
RIGHT, WITHOUT_MODALITY, WRONG_WELL_FORMED = 1.0, 0.955, 0.145

GROUPS = {
    "all wrong but well-formed: mean 0.145, no spread, kept": ([WRONG_WELL_FORMED] * 5, True),
    "all right: dropped": ([RIGHT] * 5, False),
    "one without its modality: (4 x 1.0 + 0.955) / 5 = 0.991, dropped": ([RIGHT] * 4 + [WITHOUT_MODALITY], False),
    "two without: (3 x 1.0 + 2 x 0.955) / 5 = 0.982, kept": ([RIGHT] * 3 + [WITHOUT_MODALITY] * 2, True),
    "nothing at all: dropped": ([0.0] * 5, False),
    "on the lower bound: dropped": ([0.01] * 5, False),
    "a mixture: kept": ([RIGHT, WRONG_WELL_FORMED, 0.0, 0.0, 0.0], True),
}


@pytest.mark.parametrize(("rewards", "kept"), GROUPS.values(), ids=GROUPS.keys())
def test_the_released_bounds(rewards: list[float], kept: bool) -> None:
    assert MeanBand(0.01, 0.99).keeps(rewards) is kept


def test_a_bound_that_is_null_does_not_bind() -> None:
    assert MeanBand(None, 0.99).keeps([0.0, 0.0])
    assert MeanBand(0.01, None).keeps([1.0, 1.0])
    assert not MeanBand(0.01, None).keeps([0.0, 0.0])
    assert MeanBand().is_off


@pytest.mark.parametrize(
    ("raw", "filtering", "named"),
    [
        ({"low": 0.5, "high": 0.5}, True, "low below"),
        ({"low": 0.01}, False, "filter_groups"),
        ({"lo": 0.01}, True, "low"),
    ],
    ids=["empty", "nothing would refill", "misspelt"],
)
def test_a_useless_band_is_refused(raw: dict[str, float], filtering: bool, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_mean_band(raw, filtering)


def test_null_bounds_go_with_any_algorithm() -> None:
    assert read_mean_band({"low": None, "high": None}, filtering=False).is_off
