"""Start a training command, copy its metrics, apply the guards, and end it cleanly whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn, TimeRemainingColumn

from medix.errors import TrainingGuardError
from medix.files import hold_folder, last_lines, open_to_append
from medix.jsonl import GrowingFile, JsonlWriter
from medix.processes import RUN_MARK, die_with_parent, end_processes, mark_of
from medix_verl.training.checkpoints import CheckpointKeeper, validation_values
from medix_verl.training.metrics_file import read_metrics, take_over
from medix_verl.training.watch import Finding, Watch, WatchdogOptions, clear_stop, record_stop, request_stop

POLL_S = 0.5
HELD_OUT = "val-*/*/reward/mean@*"


class Interrupted(Exception):
    """The user asked to stop (Ctrl-C or SIGTERM)."""


@dataclass
class Supervisor:
    """Watch one attempt of a run.

    Args:
        run_dir: gets `metrics.jsonl`, `train.log`, `attempts/`, `guards.jsonl`, and `stop_reason.json` if stopped.
        total_steps: for the progress display only.
        options: `medix.watchdog`.
        keeper: the run's checkpoints; with it a stopped run is asked to save first, and `best.json` is kept.
    """

    run_dir: Path
    total_steps: int | None = None
    options: WatchdogOptions = field(default_factory=WatchdogOptions)
    keeper: CheckpointKeeper | None = None
    console: Console = field(default_factory=lambda: Console(stderr=True))
    _watch: Watch = field(init=False)
    _step: int = field(default=0, init=False)
    """The last that was logged."""
    _terminated: bool = field(default=False, init=False)

    def run(self, command: Sequence[str], begin: Callable[[], None] = lambda: None) -> None:
        """Run the command to its end.

        Args:
            command: what trains.
            begin: called first, once the run's folder is ours to write into.

        Raises:
            ConfigError: another `medix train` is at work in this folder.
            TrainingGuardError: a guard stopped it, it stalled, or it failed by itself.
            Interrupted: on Ctrl-C or SIGTERM, after every process of the run has ended; on the first SIGTERM the step
                under way may be saved before, see `WatchdogOptions.term_minutes`.
        """
        with hold_folder(self.run_dir):
            # Of an attempt whose `medix train` was killed; two drivers would write the same checkpoints.
            end_processes(mark_of(self.run_dir))
            begin()
            self._attempt(command)

    def _attempt(self, command: Sequence[str]) -> None:
        attempts = self.run_dir / "attempts"
        attempts.mkdir(parents=True, exist_ok=True)
        earlier = sorted(attempts.iterdir())
        attempt_file = attempts / f"{len(earlier):03d}.jsonl"
        take_over(earlier[-1:], self.run_dir / "metrics.jsonl")
        clear_stop(self.run_dir)
        try:
            self._run(command, GrowingFile(attempt_file))
        except TrainingGuardError as error:
            latest = self.keeper.latest() if self.keeper else None
            checkpoint = self.keeper.path(latest) if self.keeper and latest is not None else None
            record_stop(self.run_dir, error, self._watch.stop.step if self._watch.stop else None, checkpoint)
            resume = f"{error.fix} The same command resumes from {checkpoint or 'the start: no checkpoint yet'}."
            raise TrainingGuardError(error.problem, resume) from None
        finally:
            if self.keeper is not None:
                # The last step was validated after its checkpoint was saved.
                self.keeper.update(self._validated())
                self.keeper.prune()

    def _run(self, command: Sequence[str], reader: GrowingFile) -> None:
        mark, log_file = mark_of(self.run_dir), self.run_dir / "train.log"
        environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(reader.path.resolve()), RUN_MARK: mark}
        handlers = {signal.SIGINT: _interrupt, signal.SIGTERM: self._terminate}
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            with open_to_append(log_file) as log:
                self._log_start = log.tell()
                process = subprocess.Popen(
                    list(command),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # should this process be killed, nothing else would end the run's
                )
                self._watch = Watch(self.run_dir, self.options, self._warn, self._log_start)
                self._follow(process, reader)
        finally:
            # A second Ctrl-C must not cut the clean-up short.
            for number in previous:
                signal.signal(number, signal.SIG_IGN)
            end_processes(mark)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _follow(self, process: subprocess.Popen[bytes], reader: GrowingFile) -> None:
        watch, log, saving = self._watch, self.run_dir / "train.log", False
        display = _Display(self.console, self.total_steps)
        with display.bar, JsonlWriter(self.run_dir / "metrics.jsonl") as metrics:
            display.say(f"log: {log}; curve and rollouts: medix report {self.run_dir}")
            while True:
                ended = process.poll() is not None
                if self._terminated and not saving:
                    self._save_or_end()
                    saving = True
                for row in reader.new_rows():
                    metrics.append(row)
                    display.step(row)
                    self._look_at(row)
                stalled, dead = watch.has_stalled(), watch.dead_engine()
                display.stage(watch.stage)
                if ended or time.monotonic() > watch.save_until or (stalled and watch.stop is not None):
                    break
                if dead:
                    raise TrainingGuardError(f"A rollout engine died: {_plain(dead)}", f"Read {log} above that line.")
                if stalled:
                    minutes = f"{self.options.stall_minutes:g} minutes"
                    raise TrainingGuardError(
                        f"No step was logged and no response scored for {minutes}; last lines of the log:\n"
                        f"{why_it_ended(log, self._log_start)}",
                        f"See {log}.",
                    )
                time.sleep(POLL_S)
        if watch.stop is not None:
            raise _stopped_by(watch.stop)
        if saving:
            raise Interrupted(signal.SIGTERM.name)
        if process.returncode != 0:
            why = f"veRL ended with {_how(process.returncode)}:\n{why_it_ended(log, self._log_start)}"
            raise TrainingGuardError(why, f"Read {log}.")

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """Note the first SIGTERM, which is looked at between two polls; a second one ends the run at once."""
        if self._terminated:
            _interrupt(number, frame)
        self._terminated = True

    def _save_or_end(self) -> None:
        """After a SIGTERM: ask for a save if it would keep steps that are not in a checkpoint yet."""
        saved = self.keeper.latest() or 0 if self.keeper else self._step
        if self._step <= saved or self.options.term_minutes == 0:
            raise Interrupted(signal.SIGTERM.name)
        self._ask_to_save(self._step, "SIGTERM", self.options.term_minutes)

    def _look_at(self, row: Mapping[str, Any]) -> None:
        """Apply the guards to a logged step, and choose the best checkpoint anew after a validation."""
        self._step = int(row["step"])
        finding = self._watch.look_at(row)
        if self.keeper is not None and self.keeper.values([row]):
            self.keeper.update(self._validated())
        if finding is not None:
            if self.keeper is None or not finding.save:
                raise _stopped_by(finding)
            self._ask_to_save(finding.step, finding.message, self.options.save_minutes)

    def _ask_to_save(self, step: int, message: str, minutes: float) -> None:
        """Ask the driver to end after the step under way, saved, within so many minutes; of two limits the nearer."""
        self._watch.save_until = min(self._watch.save_until, time.monotonic() + 60 * minutes)
        request_stop(self.run_dir, step, message)
        self._warn(f"stopping at step {step}: {message}; the step under way is saved, within {minutes:g} minutes")

    def _validated(self) -> dict[int, float]:
        assert self.keeper is not None
        return self.keeper.values(read_metrics(self.run_dir / "metrics.jsonl"))

    def _warn(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


class _Display:
    """Show how far a run is: a bar with a clock at a terminal; a line a stage of the start and a step elsewhere."""

    def __init__(self, console: Console, total: int | None) -> None:
        self._console, self._total, self._start, self._stage = console, total, time.monotonic(), ""
        columns = (
            SpinnerColumn(),
            "{task.description}",
            BarColumn(),
            TimeElapsedColumn(),
            "left",
            TimeRemainingColumn(),
        )
        # The bar repaints itself, so that clock and spinner show that the run is alive.
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self.bar.add_task("starting", total=total)

    def say(self, text: str, clock: bool = False) -> None:
        """Show a line that stays."""
        elapsed = f"{_clock(time.monotonic() - self._start)} " if clock else ""
        self._console.print(elapsed + text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, stage: str) -> None:
        """Show what veRL is doing before its first step."""
        if stage != self._stage and not self.bar.tasks[0].completed:
            self.bar.update(self._task, description=stage)
            if not self._console.is_terminal:
                self.say(stage, clock=True)
        self._stage = stage

    def step(self, row: Mapping[str, Any]) -> None:
        """Show a logged step `{"step", "data"}`."""
        step, data = int(row["step"]), row["data"]
        shown = [f"step {step}" + (f" of {self._total}" if self._total else "")]
        for key, form in (("reward/score/mean", "reward {:.3f}"), ("timing_s/step", "{:.1f} s")):
            shown += [form.format(data[key])] if data.get(key) is not None else []
        shown += [f"held-out reward {value:.3f}" for value in validation_values([row], HELD_OUT).values()]
        self.bar.update(self._task, completed=step, description=", ".join(shown))
        if not self._console.is_terminal:
            left = (data.get("timing_s/step") or 0) * ((self._total or step) - step)
            self.say(", ".join([*shown, *([f"about {_clock(left)} left"] if left else [])]), clock=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


_COLOUR, _SPEAKER = re.compile(r"\x1b\[[0-9;]*m"), re.compile(r"^\(.*?pid=\d+.*?\) ?")
# veRL warns of each engine that is not installed, Hydra repeats the command line, veRL names the prompts it lost.
_NOISE = re.compile(r"Warning|WARNING|Traceback|Error executing job with overrides|Error in _run_prompt|^    raise ")


def why_it_ended(log: Path, start: int) -> str:
    """Return the lines that name an error in what an attempt wrote, each once; its last lines if none does.

    Args:
        log: what Ray, vLLM and veRL wrote, thousands of lines of several processes.
        start: byte at which the attempt's part begins.
    """
    lines = [_plain(line) for line in last_lines(log, 400, start=start).splitlines()]
    errors = [line for line in lines if ("Error" in line or "class_name:" in line) and not _NOISE.search(line)]
    # Of what was said often, the last place counts: that is where the run ended.
    return "\n".join((list(dict.fromkeys(reversed(errors)))[::-1] or lines)[-15:])


def _plain(line: str) -> str:
    return _SPEAKER.sub("", _COLOUR.sub("", line)).rstrip()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}{' (kill -9, or the kernel was out of memory)' if name == 'SIGKILL' else ''}"


def _stopped_by(finding: Finding) -> TrainingGuardError:
    return TrainingGuardError(f"A guard stopped the run at step {finding.step}: {finding.message}.", finding.fix)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)
