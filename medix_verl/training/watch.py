"""Watch a run: the options under `medix.watchdog`, the guards on each logged step, the signs of life; and stop it.

`stop_request.json` asks; `MedixCheckpointCallback`, in veRL's driver, sees it and has the step under way saved where
veRL itself saves. `stop_reason.json` and the last line of `train.log` then say why the run has ended.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medix.errors import TrainingGuardError
from medix.files import open_to_append, write_atomically
from medix.jsonl import JsonlWriter
from medix.options import CountOrZero, NotNegative, Positive, read_options

PEARSON = "training/rollout_actor_probs_pearson_corr"
REWARD_MEAN, REWARD_STD = "reward/score/mean", "reward/score/std"
JUDGE_FAILURE_RATE = "reward/judge_failure_rate"
OPTIMISED = (REWARD_MEAN, "actor/pg_loss", "actor/loss", "actor/grad_norm")
REQUEST, REASON = "stop_request.json", "stop_reason.json"
ENGINE_GRACE_S = 60.0
"""Time for veRL to end by itself after a rollout engine has died; its own error says more."""
# The words of vLLM 0.24 and 0.28. An engine that dies with other words is left to the stall guard.
_ENGINE_DIED = b"engine core exited unexpectedly"
STAGES = (
    (b"Started a local Ray", "starting Ray"),
    (b"(TaskRunner", "loading veRL"),
    (b"(WorkerDict", "loading the model into the trainer"),
    (b"(RewardLoopWorker", "starting the reward worker"),
    (b"(vLLMHttpServer", "starting vLLM"),
    (b"(AgentLoopWorker", "validating, or in the first step"),
)
"""What a line of the log tells of veRL's start, in order: Ray names the process that wrote it."""


@dataclass(frozen=True)
class WatchdogOptions:
    """The options under `medix.watchdog`. A count of 0 switches its guard off."""

    stall_minutes: Positive = 45.0
    """End the run when neither a response was scored nor a step logged for so long; warn at half of it. Longer than the
    scorers hold: a judge that stays away ends the run itself, and by name."""
    save_minutes: Positive = 60.0
    """How long the step under way may take to end and save, once a guard has asked for the stop."""
    term_minutes: NotNegative = 4.0
    """The same after a SIGTERM, if steps have been trained since the last checkpoint; 0 ends the run at once. Slurm's
    warning comes five minutes before the end in our example."""
    pearson_warn_below: float = 0.999
    pearson_stop_below: float = 0.99
    """-1: warn only; no correlation is below it."""
    pearson_steps: CountOrZero = 1
    nonfinite_steps: CountOrZero = 2
    constant_reward_steps: CountOrZero = 10
    judge_failure_warn: float = 0.05
    judge_failure_stop: float = 0.5
    judge_failure_steps: CountOrZero = 3

    def __post_init__(self) -> None:
        if self.pearson_stop_below > self.pearson_warn_below:
            raise ValueError("pearson_stop_below is above pearson_warn_below")
        if self.judge_failure_warn > self.judge_failure_stop:
            raise ValueError("judge_failure_warn is above judge_failure_stop")


def read_watchdog(raw: Mapping[str, Any] | None) -> WatchdogOptions:
    """Return the options in the plain mapping under `medix.watchdog`, or raise a ConfigError."""
    return read_options(WatchdogOptions, raw, "medix.watchdog")


@dataclass(frozen=True)
class Finding:
    """What a guard saw at a step. "stop" ends the run; where `save` is set, after one more step and a checkpoint."""

    level: Literal["warn", "stop"]
    step: int
    message: str
    fix: str
    save: bool = True


Look = Callable[[Mapping[str, float]], tuple[bool, bool, str] | None]
"""Of a step's metrics: (worth a word, counts towards the stop, message), or None where the step has no such metric."""


@dataclass
class Guard:
    """Look at one thing in each training step: `steps` counted steps running end the run, fewer are warnings.

    Args:
        steps: 0 switches the guard off.
        fix: what the user can do; `{before}` stands for the step before the first counted one.
        save: whether the weights may be saved after the stop.
        warn_once: warn half-way to the stop only.
    """

    steps: int
    look: Look
    fix: str
    save: bool = True
    warn_once: bool = False
    _running: int = field(default=0, init=False)
    _first: int = field(default=0, init=False)

    def check(self, step: int, metrics: Mapping[str, float]) -> Finding | None:
        """Return the finding on a step, or None if there is nothing to say."""
        seen = self.look(metrics) if self.steps else None
        if seen is None:
            return None
        worth_a_word, counts, message = seen
        self._running = self._running + 1 if counts else 0
        self._first = step if self._running == 1 else self._first
        if not worth_a_word or (self.warn_once and self._running not in ((self.steps + 1) // 2, self.steps)):
            return None
        if self._running:
            message += f" ({self._running} step{'s' if self._running > 1 else ''} running)"
        level: Literal["warn", "stop"] = "stop" if self._running >= self.steps else "warn"
        return Finding(level, step, message, self.fix.format(before=self._first - 1), self.save)


def guards_of(options: WatchdogOptions) -> list[Guard]:
    """Return fresh guards, one set an attempt: they count steps in a row."""

    def pearson(metrics: Mapping[str, float]) -> tuple[bool, bool, str] | None:
        # Rollout and actor hold the same weights, so they must give the same probabilities to the same tokens.
        value = metrics.get(PEARSON)
        if value is None:
            return None
        message = f"rollout and actor probabilities correlate at {value:.4f}; the engines do not hold the same model"
        return not value >= options.pearson_warn_below, value < options.pearson_stop_below, message

    def finite(metrics: Mapping[str, float]) -> tuple[bool, bool, str] | None:
        # veRL skips an update whose gradient is not finite, so one such step may leave the weights whole. Several in a
        # row train nothing: the weights may be broken, and a new checkpoint would be what a resume loads.
        present = [key for key in OPTIMISED if key in metrics]
        bad = [key for key in present if not math.isfinite(metrics[key])]
        message = f"{bad[0]} is {metrics[bad[0]]}; veRL skips such updates" if bad else ""
        return (bool(bad), bool(bad), message) if present else None

    def constant_reward(metrics: Mapping[str, float]) -> tuple[bool, bool, str] | None:
        # No spread over whole batches means no gradient: a scorer may be stuck. A policy that is always right has no
        # spread either, and that is the aim.
        if REWARD_STD not in metrics:
            return None
        constant = metrics[REWARD_STD] == 0 and metrics.get(REWARD_MEAN, 0.0) < 0.99
        return constant, constant, "the reward was the same for every response"

    def judge_failures(metrics: Mapping[str, float]) -> tuple[bool, bool, str] | None:
        # Each call was repeated until it had a verdict, so no score is wrong: the run is slow, and near the point at
        # which the scorers give up.
        rate = metrics.get(JUDGE_FAILURE_RATE)
        if rate is None:
            return None
        message = f"{rate:.0%} of the calls of the judge failed"
        return rate > options.judge_failure_warn, rate > options.judge_failure_stop, message

    broken = (
        "Look at rollouts/scored.jsonl and the reward, or lower actor_rollout_ref.actor.optim.lr. The weights of step "
        "{before} and later may be broken: resume from an earlier checkpoint by trainer.resume_mode=resume_path "
        "trainer.resume_from_path=.../global_step_N."
    )
    dummy = "Set actor_rollout_ref.rollout.load_format=auto (dummy leaves vLLM's pixel normalisation random)."
    stuck = "Look at rollouts/scored.jsonl: is the judge answering?"
    judge = "See to the judge's server and its log; lower medix.scorer.judge.max_in_flight if it is overloaded."
    return [
        Guard(options.pearson_steps, pearson, dummy),
        Guard(options.nonfinite_steps, finite, broken, save=False),
        Guard(options.constant_reward_steps, constant_reward, stuck, warn_once=options.constant_reward_steps > 1),
        Guard(options.judge_failure_steps, judge_failures, judge),
    ]


@dataclass
class Watch:
    """Keep in mind what an attempt has shown so far. Fed with every logged row.

    Args:
        say: shows a warning to the user.
        log_start: bytes of `train.log` that earlier attempts wrote.
    """

    run_dir: Path
    options: WatchdogOptions
    say: Callable[[str], None]
    log_start: int = 0
    stop: Finding | None = field(default=None, init=False)
    """The first finding that asked for the end of the run."""
    save_until: float = field(default=math.inf, init=False)
    """When the driver's time to save is over, on the monotonic clock."""
    _last_sign: float = field(default_factory=time.monotonic, init=False)
    _warned_of_stall: bool = field(default=False, init=False)
    _engine_death: tuple[float, str] | None = field(default=None, init=False)
    _stage: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._guards = guards_of(self.options)
        self._scored_size = self._size()

    def look_at(self, row: Mapping[str, Any]) -> Finding | None:
        """Apply the guards to a row `{"step", "data"}`; returns the finding that stops the run, when it is made.

        Every finding goes to `guards.jsonl`. After the first that stops the run, the guards rest.
        """
        self._alive()
        # veRL's file logger writes null where a figure is not finite.
        data = {key: math.nan if value is None else value for key, value in row["data"].items()}
        for guard in self._guards if self.stop is None else ():
            finding = guard.check(int(row["step"]), data)
            if finding is None:
                continue
            with JsonlWriter(self.run_dir / "guards.jsonl") as file:
                file.append(vars(finding))
            if finding.level == "stop":
                self.stop = finding
                return finding
            self.say(f"warning, step {finding.step}: {finding.message}")
        return None

    def has_stalled(self) -> bool:
        """Return whether neither a response was scored nor a step logged for too long. Half-way it warns, once."""
        if self._size() != self._scored_size:
            self._scored_size = self._size()
            self._alive()
        quiet = time.monotonic() - self._last_sign
        if quiet > 30 * self.options.stall_minutes and not self._warned_of_stall:
            self._warned_of_stall = True
            self.say(f"warning: no response scored and no step logged for {quiet / 60:.1f} minutes")
        return quiet > 60 * self.options.stall_minutes

    def dead_engine(self) -> str:
        """Return the log's line on a rollout engine that died `ENGINE_GRACE_S` ago, else an empty text.

        While responses are under way they fail and veRL ends by itself. Between two generations nothing fails: the
        next weight sync waits for the engine for ever.
        """
        self._read_log()
        died = self._engine_death
        return died[1] if died and time.monotonic() - died[0] > ENGINE_GRACE_S else ""

    @property
    def stage(self) -> str:
        """What veRL is doing before its first step, as far as its log tells."""
        return STAGES[self._stage][1]

    def _read_log(self) -> None:
        with (self.run_dir / "train.log").open("rb") as file:
            file.seek(self.log_start)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self.log_start += end
        for line in content[:end].splitlines():
            self._stage = max(n for n, (sign, _) in enumerate(STAGES) if n == self._stage or sign in line)
            if _ENGINE_DIED in line and self._engine_death is None:
                self._engine_death = time.monotonic(), line.decode(errors="replace")

    def _alive(self) -> None:
        self._last_sign, self._warned_of_stall = time.monotonic(), False

    def _size(self) -> int:
        scored = self.run_dir / "rollouts" / "scored.jsonl"
        return scored.stat().st_size if scored.exists() else 0


def clear_stop(run_dir: Path) -> None:
    """Forget the last attempt's stop; `guards.jsonl` remembers it."""
    for name in (REQUEST, REASON):
        (run_dir / name).unlink(missing_ok=True)


def request_stop(run_dir: Path, step: int, message: str) -> None:
    """Ask veRL's driver to end after the step under way."""
    write_atomically(run_dir / REQUEST, json.dumps({"step": step, "reason": message}) + "\n")


def stop_requested(run_dir: Path) -> bool:
    """Return whether a stop has been asked for."""
    return (run_dir / REQUEST).exists()


def record_stop(run_dir: Path, error: TrainingGuardError, step: int | None, checkpoint: Path | None) -> None:
    """Write `stop_reason.json`, and the reason as the last line of `train.log`.

    Args:
        step: the step at which a guard stopped the run; None where no step did (a stall, a crash).
        checkpoint: the folder from which the same command resumes; None: it starts anew.
    """
    resume = str(checkpoint) if checkpoint else None
    reason = {"reason": error.problem, "fix": error.fix, "step": step, "checkpoint": resume}
    write_atomically(run_dir / REASON, json.dumps(reason, indent=2) + "\n")
    line = " ".join(f"STOPPED: {error.problem} Checkpoint: {resume or 'none yet'}. Fix: {error.fix}".split())
    with open_to_append(run_dir / "train.log") as log:
        log.write(line.encode("utf-8", "backslashreplace") + b"\n")
