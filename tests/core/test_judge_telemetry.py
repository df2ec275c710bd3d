"""Judge calls and hit rates of a step."""

from __future__ import annotations

import pytest

from medix.telemetry import reward_metrics

RESPONSES = {
    "exact match, nobody asked": (0.0, 0.0, 0.0),
    "asked": (1.0, 0.0, 0.0),
    "from the cache": (1.0, 1.0, 0.0),
    "shared with a call in flight": (1.0, 0.0, 1.0),
}


def test_calls_and_rates_count_only_needed_verdicts() -> None:
    """4 responses, 3 verdicts needed: 1 cached, 1 shared, so 3 - 1 - 1 = 1 call and rates of 1/3."""
    rows = [{"judge_asked": a, "judge_cached": c, "judge_shared": s} for a, c, s in RESPONSES.values()]
    metrics = reward_metrics(["g"] * 4, rows)
    assert metrics["reward/judge_calls"] == 1
    assert metrics["reward/judge_cache_hit_rate"] == pytest.approx(1 / 3)
    assert metrics["reward/judge_coalesced_rate"] == pytest.approx(1 / 3)


def test_no_verdict_needed_is_a_rate_of_zero() -> None:
    metrics = reward_metrics(["g"], [{"judge_asked": 0.0, "judge_cached": 0.0, "judge_shared": 0.0}])
    assert metrics["reward/judge_calls"] == 0
    assert metrics["reward/judge_cache_hit_rate"] == 0.0
