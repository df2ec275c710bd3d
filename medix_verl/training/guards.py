"""Consistency guards on the training metrics: each looks at one step and says warn, stop, or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

PEARSON = "training/rollout_actor_probs_pearson_corr"
REWARD_MEAN, REWARD_STD = "reward/score/mean", "reward/score/std"
JUDGE_FAILURE_RATE = "reward/judge_failure_rate"


@dataclass(frozen=True)
class Finding:
    """What a guard saw at a step. "stop" ends the run; where `save` is set, after one more step and a checkpoint."""

    level: Literal["warn", "stop"]
    step: int
    message: str
    fix: str
    save: bool = True


class Guard(Protocol):
    """Looks at the metrics of one training step."""

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None: ...


@dataclass
class PearsonGuard:
    """Rollout and actor must give the same probabilities to the same tokens: they hold the same weights. How close they
    come depends on the precision; `steps` running below `stop_below` end the run.
    """

    warn_below: float = 0.999
    stop_below: float = 0.99
    steps: int = 1
    _streak: int = field(default=0, init=False)

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        value = metrics.get(PEARSON)
        if value is None:
            return None
        self._streak = self._streak + 1 if value < self.stop_below else 0
        if value >= self.warn_below:
            return None
        message = f"rollout and actor probabilities correlate at {value:.4f}; the engines do not hold the same model"
        if self._streak:
            message += f", below {self.stop_below:g} for {self._streak} step(s) running"
        fix = "set actor_rollout_ref.rollout.load_format=auto (dummy leaves vLLM's pixel normalisation random)"
        return Finding("stop" if self._streak >= self.steps else "warn", step, message, fix)


@dataclass
class FiniteGuard:
    """A NaN or an infinity in what is optimised. veRL skips an update whose gradient is not finite, so one such step
    may leave the weights whole and is a warning; `steps` of them in a row train nothing, and end the run at once:
    the weights themselves may be broken, and a new checkpoint would be what a resume loads.
    """

    steps: int = 2
    keys: tuple[str, ...] = (REWARD_MEAN, "actor/pg_loss", "actor/loss", "actor/grad_norm")
    _streak: int = field(default=0, init=False)
    _first: int = field(default=0, init=False)

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        present = [key for key in self.keys if key in metrics]
        bad = [key for key in present if not math.isfinite(metrics[key])]
        if not bad:
            self._streak = 0 if present else self._streak
            return None
        self._streak += 1
        self._first = step if self._streak == 1 else self._first
        message = f"{bad[0]} is {metrics[bad[0]]}, in {self._streak} step(s) running; veRL skips such updates"
        fix = (
            "look at rollouts/scored.jsonl and the reward, or take a smaller actor_rollout_ref.actor.optim.lr; the "
            f"weights of step {self._first - 1} and later may be broken: resume from an earlier checkpoint by "
            "trainer.resume_mode=resume_path trainer.resume_from_path=.../global_step_N"
        )
        return Finding("stop" if self._streak >= self.steps else "warn", step, message, fix, save=False)


@dataclass
class ConstantRewardGuard:
    """A reward without any spread over `steps` whole batches carries no gradient; a scorer may be stuck.

    Half-way there it warns, once.
    """

    steps: int = 10
    _streak: int = field(default=0, init=False)

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        if REWARD_STD not in metrics:
            return None
        # All right is an end, not a fault.
        constant = metrics[REWARD_STD] == 0.0 and metrics.get(REWARD_MEAN, 0.0) < 0.99
        self._streak = self._streak + 1 if constant else 0
        if self._streak < self.steps and not (self.steps > 1 and self._streak == (self.steps + 1) // 2):
            return None
        message = f"the reward was the same for every response of {self._streak} steps"
        fix = "look at rollouts/scored.jsonl: is the judge answering?"
        return Finding("stop" if self._streak >= self.steps else "warn", step, message, fix)


@dataclass
class JudgeFailureGuard:
    """Calls of the judge that failed. Each was repeated until it had a verdict, so no score is wrong: the run is slow,
    and near the point at which the scorers give up. `steps` running above `stop_above` end it.
    """

    warn_above: float = 0.05
    stop_above: float = 0.5
    steps: int = 3
    _streak: int = field(default=0, init=False)

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        rate = metrics.get(JUDGE_FAILURE_RATE)
        if rate is None:
            return None
        self._streak = self._streak + 1 if rate > self.stop_above else 0
        if rate <= self.warn_above:
            return None
        message = f"{rate:.0%} of the calls of the judge failed"
        if self._streak:
            message += f", above {self.stop_above:.0%} for {self._streak} step(s) running"
        fix = "see to the judge's server and its log; lower medix.scorer.judge.max_in_flight if it is overloaded"
        return Finding("stop" if self._streak >= self.steps else "warn", step, message, fix)
