"""The released run's filter rule, on groups whose reward is known."""

from __future__ import annotations

import pytest

from medix.errors import ConfigError
from medix_verl.mean_band import MeanBand, read_mean_band

# 0.5175 judge + 0.3375 embedder + 0.045 modality + 0.10 format.
RIGHT, WITHOUT_MODALITY, WRONG_WELL_FORMED = 1.0, 0.955, 0.145
RELEASED = MeanBand(0.01, 0.99)

GROUPS = {
    "all wrong but well-formed: mean 0.145, no spread, kept": (RELEASED, [WRONG_WELL_FORMED] * 5, True),
    "all right: dropped": (RELEASED, [RIGHT] * 5, False),
    "(4 x 1.0 + 0.955) / 5 = 0.991: dropped": (RELEASED, [RIGHT] * 4 + [WITHOUT_MODALITY], False),
    "(3 x 1.0 + 2 x 0.955) / 5 = 0.982: kept": (RELEASED, [RIGHT] * 3 + [WITHOUT_MODALITY] * 2, True),
    "nothing at all: dropped": (RELEASED, [0.0] * 5, False),
    "on the lower bound: dropped": (RELEASED, [0.01] * 5, False),
    "a mixture: kept": (RELEASED, [RIGHT, WRONG_WELL_FORMED, 0.0, 0.0, 0.0], True),
    "an empty group: kept": (RELEASED, [], True),
    "no lower bound": (MeanBand(None, 0.99), [0.0, 0.0], True),
    "no upper bound": (MeanBand(0.01, None), [1.0, 1.0], True),
    "no upper bound, below the lower": (MeanBand(0.01, None), [0.0, 0.0], False),
}


@pytest.mark.parametrize(("band", "rewards", "kept"), GROUPS.values(), ids=GROUPS)
def test_the_bounds(band: MeanBand, rewards: list[float], kept: bool) -> None:
    assert band.keeps(rewards) is kept


@pytest.mark.parametrize(
    ("raw", "filtering", "named"),
    [
        ({"low": 0.5, "high": 0.5}, True, "low is not below high"),
        ({"low": 0.01}, False, "filter_groups"),
        ({"lo": 0.01}, True, "low"),
    ],
    ids=["empty", "nothing would refill", "misspelt"],
)
def test_a_useless_band_is_refused(raw: dict[str, float], filtering: bool, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_mean_band(raw, filtering)
    assert read_mean_band({"low": None, "high": None}, filtering=False).is_off
