"""What each guard says of several steps, and which watchdog options are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from medix.errors import ConfigError
from medix_verl.training.watch import (
    JUDGE_FAILURE_RATE,
    PEARSON,
    REWARD_MEAN,
    REWARD_STD,
    Finding,
    Watch,
    WatchdogOptions,
    guards_of,
    read_watchdog,
)

NAN = math.nan
BF16 = {"pearson_warn_below": 0.99, "pearson_stop_below": 0.9, "pearson_steps": 3}
ONCE, TEN = {"nonfinite_steps": 1}, {"constant_reward_steps": 10}
THREE = {"constant_reward_steps": 3}
CONSTANT = {REWARD_STD: 0.0, REWARD_MEAN: 0.145}
VALIDATION = {"val-core/acc": 0.5}
HEALTHY = {PEARSON: 0.9999, REWARD_MEAN: 0.4, REWARD_STD: 0.2, "actor/grad_norm": 2.0, JUDGE_FAILURE_RATE: 0.0}


def findings(options: dict[str, Any], rows: list[dict[str, float]]) -> list[Finding | None]:
    guards = guards_of(read_watchdog(options))
    return [next(filter(None, (guard.check(n, row) for guard in guards)), None) for n, row in enumerate(rows)]


def pearson(*values: float | None) -> list[dict[str, float]]:
    return [{} if value is None else {PEARSON: value} for value in values]


def judge(*rates: float) -> list[dict[str, float]]:
    return [{JUDGE_FAILURE_RATE: rate} for rate in rates]


# Options, one row of metrics a step, what is said of each step: "" nothing, "w" a warning, "s" stop.
CASES: dict[str, tuple[dict[str, Any], list[dict[str, float]], list[str]]] = {
    "healthy": ({}, [HEALTHY, VALIDATION, HEALTHY], ["", "", ""]),
    "fp32: warn below 0.999": ({}, pearson(1.0, 0.9991, 0.999, 0.9989, 0.99), ["", "", "", "w", "w"]),
    "fp32: stop below 0.990": ({}, pearson(0.9899), ["s"]),
    # Published of healthy bf16 engines; one step of 0.977 stopped every GPU run before.
    "healthy bf16": (BF16, pearson(0.998, 0.977, 0.977, 0.977, 0.977), ["", "w", "w", "w", "w"]),
    "load_format=dummy in bf16": (BF16, pearson(0.75, 0.7, 0.8), ["w", "w", "s"]),
    "one good step begins the count anew": (BF16, pearson(0.8, 0.8, 0.95, 0.8, 0.8), ["w"] * 5),
    "a row without the figure does not": (BF16, pearson(0.8, 0.8, None, 0.8), ["w", "w", "", "s"]),
    "not a number is below nothing": (BF16, pearson(0.8, 0.8, NAN, 0.8), ["w"] * 4),
    "-1 only warns": ({**BF16, "pearson_stop_below": -1.0}, pearson(0.6, 0.6, 0.6, -1.0), ["w"] * 4),
    "one NaN is a warning": ({}, [{"actor/grad_norm": NAN}, {"actor/grad_norm": 1.0}], ["w", ""]),
    "two NaN in a row stop": ({}, [{"actor/grad_norm": NAN}, VALIDATION, {REWARD_MEAN: math.inf}], ["w", "", "s"]),
    "a finite step begins anew": ({}, [{"actor/pg_loss": x} for x in (NAN, 1.0, -math.inf)], ["w", "", "w"]),
    "what is not optimised may be NaN": ({}, [{REWARD_MEAN: 0.2, "actor/grad_norm": 1e9, "perf/mfu": NAN}], [""]),
    "a constant reward, warned of once half-way": (THREE, [CONSTANT] * 3, ["", "w", "s"]),
    "of ten steps": (TEN, [CONSTANT] * 10, ["", "", "", "", "w", "", "", "", "", "s"]),
    "of one step": ({"constant_reward_steps": 1}, [CONSTANT], ["s"]),
    "a spread begins anew": (THREE, [CONSTANT, CONSTANT, {**CONSTANT, REWARD_STD: 0.1}, CONSTANT], ["", "w", "", ""]),
    "validation rows do not count": (THREE, [CONSTANT, VALIDATION, CONSTANT, CONSTANT], ["", "", "w", "s"]),
    "all right is the aim": (THREE, [{REWARD_STD: 0.0, REWARD_MEAN: 1.0}] * 4, [""] * 4),
    "all wrong is not": (THREE, [{REWARD_STD: 0.0, REWARD_MEAN: 0.0}] * 3, ["", "w", "s"]),
    "5 % of failed calls of the judge are nothing": ({}, judge(0.0, 0.05), ["", ""]),
    "some, for ever": ({}, judge(*[0.2] * 5), ["w"] * 5),
    "most, for three steps": ({}, judge(0.6, 0.6, 0.6), ["w", "w", "s"]),
    "most, with a better step between": ({}, judge(0.6, 0.6, 0.5, 0.6), ["w"] * 4),
    "a count of 0 switches off": (
        {"pearson_steps": 0, "nonfinite_steps": 0, "constant_reward_steps": 0, "judge_failure_steps": 0},
        [{PEARSON: 0.1, REWARD_MEAN: NAN, REWARD_STD: 0.0, JUDGE_FAILURE_RATE: 1.0}] * 12,
        [""] * 12,
    ),
}


@pytest.mark.parametrize(("options", "rows", "expected"), CASES.values(), ids=CASES)
def test_what_is_said_of_each_step(options: dict[str, Any], rows: list[dict[str, float]], expected: list[str]) -> None:
    assert [finding.level[0] if finding else "" for finding in findings(options, rows)] == expected


def test_a_finding_says_what_was_seen_and_what_to_do() -> None:
    (low,) = findings({}, pearson(0.5))
    assert low is not None
    assert (low.step, low.save) == (0, True)
    assert "correlate at 0.5" in low.message
    assert "load_format=auto" in low.fix
    broken = findings({}, [HEALTHY, HEALTHY, *[{"actor/grad_norm": NAN}] * 2])[3]
    assert broken is not None
    assert not broken.save
    assert "grad_norm is nan" in broken.message
    assert "weights of step 1 and later may be broken" in broken.fix  # they gave step 2 its figures


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


def test_the_stage_of_the_start_only_goes_forward(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("of an earlier attempt (AgentLoopWorker pid=1)\n")
    watch = Watch(tmp_path, WatchdogOptions(), print, log.stat().st_size)
    stages = []
    for line in (
        "Started a local Ray instance.",
        "(TaskRunnerV1) x",
        "(vLLMHttpServer pid=4) y",
        "(WorkerDict) z",
    ):
        with log.open("a") as file:
            file.write(line + "\n")
        assert watch.dead_engine() == ""
        stages.append(watch.stage)
    assert stages == ["starting Ray", "loading veRL", "starting vLLM", "starting vLLM"]
