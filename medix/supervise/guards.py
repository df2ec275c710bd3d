"""Consistency guards on the training metrics: each looks at one step and says warn, stop, or nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

PEARSON = "training/rollout_actor_probs_pearson_corr"
REWARD_MEAN, REWARD_STD = "reward/score/mean", "reward/score/std"


@dataclass(frozen=True)
class Finding:
    """What a guard saw at a step. `level` "stop" ends the run."""

    level: Literal["warn", "stop"]
    step: int
    message: str
    fix: str


class Guard(Protocol):
    """Looks at the metrics of one training step."""

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None: ...


@dataclass
class PearsonGuard:
    """Rollout and actor must give the same probabilities to the same tokens: they hold the same weights."""

    warn_below: float = 0.999
    stop_below: float = 0.99

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        value = metrics.get(PEARSON)
        if value is None or value >= self.warn_below:
            return None
        message = f"rollout and actor probabilities correlate at {value:.4f}; the engines do not hold the same model"
        fix = "set actor_rollout_ref.rollout.load_format=auto (dummy leaves vLLM's pixel normalisation random)"
        return Finding("stop" if value < self.stop_below else "warn", step, message, fix)


@dataclass
class FiniteGuard:
    """A NaN or an infinity in what is optimised ends the run before a checkpoint holds it."""

    keys: tuple[str, ...] = (REWARD_MEAN, "actor/pg_loss", "actor/grad_norm")

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        for key in self.keys:
            if key in metrics and not math.isfinite(metrics[key]):
                fix = "resume from the last checkpoint with a smaller actor_rollout_ref.actor.optim.lr"
                return Finding("stop", step, f"{key} is {metrics[key]}", fix)
        return None


@dataclass
class ConstantRewardGuard:
    """A reward without any spread over several whole batches carries no gradient; a scorer may be stuck."""

    steps: int = 10
    _recent: deque[bool] = field(default_factory=deque)

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        if REWARD_STD not in metrics:
            return None
        # All right is an end, not a fault.
        self._recent.append(metrics[REWARD_STD] == 0.0 and metrics.get(REWARD_MEAN, 0.0) < 0.99)
        if len(self._recent) > self.steps:
            self._recent.popleft()
        if len(self._recent) < self.steps or not all(self._recent):
            return None
        message = f"the reward was the same for every response of {self.steps} steps"
        return Finding("stop", step, message, "look at rollouts/scored.jsonl: is the judge answering?")


def default_guards() -> list[Guard]:
    return [PearsonGuard(), FiniteGuard(), ConstantRewardGuard()]
