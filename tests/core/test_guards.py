"""What each guard says of one step, or of several."""

from __future__ import annotations

import math

import pytest

from medix.supervise.guards import (
    PEARSON,
    REWARD_MEAN,
    REWARD_STD,
    ConstantRewardGuard,
    FiniteGuard,
    PearsonGuard,
    default_guards,
)


@pytest.mark.parametrize(
    ("value", "level"),
    [(1.0, None), (0.9991, None), (0.999, None), (0.9989, "warn"), (0.99, "warn"), (0.9899, "stop"), (0.1, "stop")],
)
def test_pearson_warns_below_999_and_stops_below_990(value: float, level: str | None) -> None:
    finding = PearsonGuard().check(7, {PEARSON: value})
    assert (finding.level if finding else None) == level
    if finding:
        assert finding.step == 7
        assert "load_format=auto" in finding.fix


def test_a_step_without_the_correlation_is_passed_over() -> None:
    assert PearsonGuard().check(0, {"val-core/acc": 0.5}) is None


def test_a_correlation_that_is_not_a_number_is_a_warning() -> None:
    finding = PearsonGuard().check(1, {PEARSON: math.nan})
    assert finding is not None
    assert finding.level == "warn"


@pytest.mark.parametrize("key", [REWARD_MEAN, "actor/pg_loss", "actor/grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_optimised_must_be_finite(key: str, value: float) -> None:
    finding = FiniteGuard().check(3, {key: value})
    assert finding is not None
    assert finding.level == "stop"
    assert key in finding.message


def test_finite_figures_and_figures_nobody_optimises_pass() -> None:
    assert FiniteGuard().check(1, {REWARD_MEAN: 0.2, "actor/grad_norm": 1e9, "perf/mfu": math.nan}) is None


def run_of(*stds: float, mean: float = 0.3, steps: int = 3) -> list[int]:
    """Positions at which a guard over `steps` batches stops the run."""
    guard = ConstantRewardGuard(steps)
    return [
        number
        for number, std in enumerate(stds)
        if guard.check(number, {REWARD_STD: std, REWARD_MEAN: mean}) is not None
    ]


def test_a_constant_reward_stops_the_run_after_that_many_steps_and_not_before() -> None:
    assert run_of(0.0, 0.0) == []
    assert run_of(0.0, 0.0, 0.0) == [2]
    assert run_of(0.0, 0.0, 0.1, 0.0, 0.0) == []
    assert run_of(0.1, 0.0, 0.0, 0.0) == [3]


def test_all_right_is_no_fault() -> None:
    assert run_of(0.0, 0.0, 0.0, 0.0, mean=1.0) == []
    assert run_of(0.0, 0.0, 0.0, mean=0.0) == [2]


def test_validation_rows_do_not_count_as_steps() -> None:
    guard = ConstantRewardGuard(2)
    assert guard.check(1, {REWARD_STD: 0.0, REWARD_MEAN: 0.0}) is None
    assert guard.check(1, {"val-core/acc": 0.0}) is None
    assert guard.check(2, {REWARD_STD: 0.0, REWARD_MEAN: 0.0}) is not None


def test_the_default_guards_pass_a_healthy_step() -> None:
    healthy = {PEARSON: 0.9999, REWARD_MEAN: 0.4, REWARD_STD: 0.2, "actor/pg_loss": -0.1, "actor/grad_norm": 2.0}
    assert [guard.check(1, healthy) for guard in default_guards()] == [None, None, None]
