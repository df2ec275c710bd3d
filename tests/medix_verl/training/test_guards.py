"""What each guard says of one step, or of several."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest

from medix.errors import ConfigError
from medix_verl.training.guards import (
    JUDGE_FAILURE_RATE,
    PEARSON,
    REWARD_MEAN,
    REWARD_STD,
    ConstantRewardGuard,
    FiniteGuard,
    Guard,
    JudgeFailureGuard,
    PearsonGuard,
)
from medix_verl.training.watchdog import WatchdogOptions, guards_of, read_watchdog


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


BF16 = {"warn_below": 0.99, "stop_below": 0.9, "steps": 3}
IN_ORDER: dict[str, tuple[dict[str, float], list[float | None], list[str]]] = {
    # Published of healthy bf16 engines; one step of 0.977 stopped every GPU run before.
    "healthy bf16": (BF16, [0.998, 0.977, 0.977, 0.977, 0.977], ["", "warn", "warn", "warn", "warn"]),
    "load_format=dummy in bf16": (BF16, [0.75, 0.7, 0.8], ["warn", "warn", "stop"]),
    "one good step begins the count anew": (BF16, [0.8, 0.8, 0.95, 0.8, 0.8], ["warn"] * 5),
    "a row without it does not": (BF16, [0.8, 0.8, None, 0.8], ["warn", "warn", "", "stop"]),
    "not a number is below nothing": (BF16, [0.8, 0.8, math.nan, 0.8], ["warn"] * 4),
    "-1 only warns": ({**BF16, "stop_below": -1.0}, [0.6, 0.6, 0.6, -1.0], ["warn"] * 4),
}


@pytest.mark.parametrize(("settings", "values", "expected"), IN_ORDER.values(), ids=IN_ORDER.keys())
def test_pearson_stops_after_steps_in_a_row(
    settings: dict[str, Any], values: list[float | None], expected: list[str]
) -> None:
    rows: list[dict[str, float]] = [{} if value is None else {PEARSON: value} for value in values]
    assert levels(PearsonGuard(**settings), rows) == expected


def test_a_correlation_that_is_not_a_number_is_a_warning() -> None:
    finding = PearsonGuard().check(1, {PEARSON: math.nan})
    assert finding is not None
    assert finding.level == "warn"


def levels(guard: Guard, rows: Iterable[dict[str, float]]) -> list[str]:
    """What a guard says of each of several rows: "" for nothing."""
    findings = [guard.check(number, row) for number, row in enumerate(rows)]
    return [finding.level if finding else "" for finding in findings]


@pytest.mark.parametrize("key", [REWARD_MEAN, "actor/pg_loss", "actor/grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_optimised_must_be_finite(key: str, value: float) -> None:
    assert levels(FiniteGuard(), [{key: value}, {key: value}]) == ["warn", "stop"]
    finding = FiniteGuard(steps=1).check(3, {key: value})
    assert finding is not None
    assert (finding.level, finding.step, finding.save) == ("stop", 3, False)
    assert key in finding.message
    assert "weights of step 2 and later may be broken" in finding.fix  # they gave step 3 its figures


def test_a_finite_step_between_starts_the_count_anew_and_a_validation_row_does_not() -> None:
    bad, good, validation = {"actor/grad_norm": math.nan}, {"actor/grad_norm": 1.0}, {"val-core/acc": 0.5}
    assert levels(FiniteGuard(), [bad, good, bad, validation, bad]) == ["warn", "", "warn", "", "stop"]


def test_finite_figures_and_figures_nobody_optimises_pass() -> None:
    assert FiniteGuard().check(1, {REWARD_MEAN: 0.2, "actor/grad_norm": 1e9, "perf/mfu": math.nan}) is None


def run_of(*stds: float, mean: float = 0.3, steps: int = 3) -> list[int]:
    """Positions at which a guard over `steps` batches stops the run."""
    guard = ConstantRewardGuard(steps)
    return [
        number
        for number, std in enumerate(stds)
        if (finding := guard.check(number, {REWARD_STD: std, REWARD_MEAN: mean})) and finding.level == "stop"
    ]


def test_a_constant_reward_stops_the_run_after_that_many_steps_and_not_before() -> None:
    assert run_of(0.0, 0.0) == []
    assert run_of(0.0, 0.0, 0.0) == [2]
    assert run_of(0.0, 0.0, 0.1, 0.0, 0.0) == []
    assert run_of(0.1, 0.0, 0.0, 0.0) == [3]


def test_half_way_to_the_stop_it_warns_once() -> None:
    row = {REWARD_STD: 0.0, REWARD_MEAN: 0.145}
    assert levels(ConstantRewardGuard(5), [row] * 5) == ["", "", "warn", "", "stop"]
    assert levels(ConstantRewardGuard(1), [row]) == ["stop"]


def test_all_right_is_no_fault() -> None:
    assert run_of(0.0, 0.0, 0.0, 0.0, mean=1.0) == []
    assert run_of(0.0, 0.0, 0.0, mean=0.0) == [2]


def test_validation_rows_do_not_count_as_steps() -> None:
    constant, validation = {REWARD_STD: 0.0, REWARD_MEAN: 0.0}, {"val-core/acc": 0.0}
    assert levels(ConstantRewardGuard(2), [constant, validation, constant]) == ["warn", "", "stop"]


JUDGE_RATES = {
    "none": ([0.0, 0.05], ["", ""]),
    "some, for ever": ([0.2] * 5, ["warn"] * 5),
    "most, for three steps": ([0.6, 0.6, 0.6], ["warn", "warn", "stop"]),
    "most, with a better step between": ([0.6, 0.6, 0.5, 0.6], ["warn"] * 4),
}


@pytest.mark.parametrize(("rates", "expected"), JUDGE_RATES.values(), ids=JUDGE_RATES.keys())
def test_failing_calls_of_the_judge(rates: list[float], expected: list[str]) -> None:
    """The defaults: warn above 5 %, stop after three steps running above 50 %."""
    assert levels(JudgeFailureGuard(), [{JUDGE_FAILURE_RATE: rate} for rate in rates]) == expected


def test_the_default_guards_pass_a_healthy_step() -> None:
    healthy = {PEARSON: 0.9999, REWARD_MEAN: 0.4, REWARD_STD: 0.2, "actor/pg_loss": -0.1, "actor/grad_norm": 2.0}
    healthy[JUDGE_FAILURE_RATE] = 0.0
    assert [guard.check(1, healthy) for guard in guards_of(WatchdogOptions())] == [None] * 4


def test_a_count_of_0_switches_a_guard_off() -> None:
    counts = ("pearson_steps", "nonfinite_steps", "constant_reward_steps", "judge_failure_steps")
    assert guards_of(read_watchdog(dict.fromkeys(counts, 0))) == []


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"constant_steps": 3}, "constant_reward_steps"),
        ({"stall_minutes": 0}, "stall_minutes"),
        ({"stall_minutes": "soon"}, "stall_minutes"),
        ({"pearson_stop_below": 0.9999}, "pearson_warn_below"),
        ({"judge_failure_warn": 0.9}, "judge_failure_stop"),
    ],
    ids=["unknown, with the near one", "no time at all", "not a number", "stops before it warns", "the same, judge"],
)
def test_wrong_settings_are_refused(raw: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_watchdog(raw)
