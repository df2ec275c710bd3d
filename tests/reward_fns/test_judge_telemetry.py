"""Judge calls and hit rates of a step."""

from __future__ import annotations

import pytest

from medix_verl.training.watch import JUDGE_FAILURE_RATE
from reward_fns.telemetry import reward_metrics

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


def test_failed_requests_are_a_share_of_all_requests() -> None:
    """Two verdicts that took 1 + 2 failed requests besides their own: 3 of 5 failed."""
    rows = [
        {"judge_asked": 1.0, "judge_cached": 0.0, "judge_shared": 0.0, "judge_faults": faults} for faults in (1.0, 2.0)
    ]
    metrics = reward_metrics(["g", "g"], rows)
    assert metrics["reward/judge_failures"] == 3
    assert metrics[JUDGE_FAILURE_RATE] == pytest.approx(3 / 5)
    assert "reward/judge_faults/mean" not in metrics


def test_no_verdict_needed_is_a_rate_of_zero() -> None:
    metrics = reward_metrics(["g"], [{"judge_asked": 0.0, "judge_cached": 0.0, "judge_shared": 0.0}])
    assert metrics["reward/judge_calls"] == 0
    assert metrics[JUDGE_FAILURE_RATE] == 0.0
    assert metrics["reward/judge_cache_hit_rate"] == 0.0
