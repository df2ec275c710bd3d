"""The options under `medix.watchdog`, and the guards they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medix.errors import ConfigError
from medix.options import read_options
from medix_verl.training.guards import ConstantRewardGuard, FiniteGuard, Guard, JudgeFailureGuard, PearsonGuard


@dataclass(frozen=True)
class WatchdogOptions:
    """A count of 0 switches its guard off."""

    stall_minutes: float = 45.0
    """End the run when neither a response was scored nor a step logged for so long; warn at half of it. Longer than the
    scorers hold: a judge that stays away ends the run itself, and by name."""
    save_minutes: float = 60.0
    """How long the step under way may take to end and save, once a guard has asked for the stop."""
    term_minutes: float = 4.0
    """The same after a SIGTERM, if steps have been trained since the last checkpoint; 0 ends the run at once. Slurm's
    warning comes five minutes before the end in our example."""
    pearson_warn_below: float = 0.999
    pearson_stop_below: float = 0.99
    """-1: warn only; no correlation is below it."""
    pearson_steps: int = 1
    nonfinite_steps: int = 2
    constant_reward_steps: int = 10
    judge_failure_warn: float = 0.05
    judge_failure_stop: float = 0.5
    judge_failure_steps: int = 3


def read_watchdog(raw: Mapping[str, Any] | None) -> WatchdogOptions:
    """Options from the plain mapping under `medix.watchdog`.

    Raises:
        ConfigError: unknown option, wrong type, or figures that contradict each other.
    """
    options = read_options(WatchdogOptions, raw, "medix.watchdog")
    for good, expected in (
        (options.stall_minutes > 0, "medix.watchdog.stall_minutes above 0"),
        (options.save_minutes > 0, "medix.watchdog.save_minutes above 0"),
        (options.term_minutes >= 0, "medix.watchdog.term_minutes of 0 or more"),
        (options.pearson_stop_below <= options.pearson_warn_below, "pearson_stop_below up to pearson_warn_below"),
        (options.judge_failure_warn <= options.judge_failure_stop, "judge_failure_warn up to judge_failure_stop"),
    ):
        if not good:
            raise ConfigError(expected, str(options), "correct the settings under medix.watchdog")
    return options


def guards_of(options: WatchdogOptions) -> list[Guard]:
    """Fresh guards, one set an attempt: they count steps in a row."""
    guards: list[Guard] = []
    if options.pearson_steps > 0:
        guards.append(PearsonGuard(options.pearson_warn_below, options.pearson_stop_below, options.pearson_steps))
    if options.nonfinite_steps > 0:
        guards.append(FiniteGuard(options.nonfinite_steps))
    if options.constant_reward_steps > 0:
        guards.append(ConstantRewardGuard(options.constant_reward_steps))
    if options.judge_failure_steps > 0:
        guards.append(
            JudgeFailureGuard(options.judge_failure_warn, options.judge_failure_stop, options.judge_failure_steps)
        )
    return guards
