"""Starts a training command, copies its metrics, applies the guards, and ends it cleanly whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import Progress

from medix.errors import TrainingGuardError
from medix.jsonl import GrowingFile
from medix.processes import RUN_MARK, die_with_parent, end_processes, hold_run, mark_of
from medix_verl.training.checkpoints import CheckpointKeeper, validation_values
from medix_verl.training.engine_death import EngineDeath
from medix_verl.training.guards import Finding
from medix_verl.training.log_tail import LAST_LINES, telling_lines
from medix_verl.training.metrics_file import read_metrics, take_over
from medix_verl.training.stop import clear_stop, record_stop
from medix_verl.training.watch import Watch
from medix_verl.training.watchdog import WatchdogOptions

POLL_S = 0.5


class Interrupted(Exception):
    """The user asked to stop (Ctrl-C or SIGTERM)."""


@dataclass
class Supervisor:
    """Watches one attempt of a run.

    Args:
        run_dir: gets `metrics.jsonl`, `train.log`, `attempts/`, `guards.jsonl`, and `stop_reason.json` if stopped.
        total_steps: for the progress bar only.
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
    _log_start: int = field(default=0, init=False)
    """Bytes of `train.log` that earlier attempts wrote."""

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
        with hold_run(self.run_dir):
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
        self._watch = Watch(self.run_dir, self.options, self.console)
        try:
            self._run(command, GrowingFile(attempt_file))
        except TrainingGuardError as error:
            checkpoint = self._checkpoint()
            record_stop(self.run_dir, error, self._watch.stopped_at, checkpoint)
            resume = f"{error.fix}. The same command resumes from {checkpoint or 'the start: no checkpoint yet'}"
            raise TrainingGuardError(error.expected, error.found, resume) from None
        finally:
            if self.keeper is not None:
                # The last step was validated after its checkpoint was saved.
                self.keeper.update(self._validated())
                self.keeper.prune()

    def _run(self, command: Sequence[str], reader: GrowingFile) -> None:
        mark = mark_of(self.run_dir)
        environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(reader.path.resolve()), RUN_MARK: mark}
        handlers = {signal.SIGINT: _interrupt, signal.SIGTERM: self._terminate}
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            with (self.run_dir / "train.log").open("ab") as log:
                self._log_start = log.tell()
                process = subprocess.Popen(
                    list(command),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # should this process be killed, nobody would end the run's
                )
                self._follow(process, reader)
        finally:
            # A second Ctrl-C must not cut the clean-up short.
            for number in previous:
                signal.signal(number, signal.SIG_IGN)
            end_processes(mark)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _follow(self, process: subprocess.Popen[bytes], reader: GrowingFile) -> None:
        metrics_path, watch = self.run_dir / "metrics.jsonl", self._watch
        engines = EngineDeath(self.run_dir / "train.log", self._log_start)
        progress = Progress(console=self.console, transient=True, disable=not self.console.is_terminal)
        with progress, metrics_path.open("a") as metrics_file:
            task = progress.add_task("starting veRL, Ray and vLLM", total=self.total_steps)
            saving = False
            while True:
                ended = process.poll() is not None
                if self._terminated and not saving:
                    self._save_or_end()
                    saving = True
                for row in reader.new_rows():
                    metrics_file.write(json.dumps(row) + "\n")
                    metrics_file.flush()
                    progress.update(task, completed=row["step"], description=_headline(row))
                    self._look_at(row)
                stalled = watch.has_stalled()
                if ended or watch.save_is_overdue() or (stalled and watch.stop is not None):
                    break
                if dead := engines.overdue():
                    fix = "look for its cause above that line in train.log"
                    raise TrainingGuardError("rollout engines that live", f"one that died: {dead}", fix)
                if stalled:
                    raise TrainingGuardError(
                        f"a logged step or a scored response every {self.options.stall_minutes:g} minutes",
                        f"neither for that long; last lines of the log:\n{self._log_tail()}",
                        "see the log above",
                    )
                time.sleep(POLL_S)
        if watch.stop is not None:
            raise _stopped_by(watch.stop)
        if saving:
            raise Interrupted(signal.SIGTERM.name)
        if process.returncode != 0:
            raise TrainingGuardError(
                "veRL to end with exit code 0",
                f"{_how_it_ended(process.returncode)}; what it said:\n{self._log_tail()}",
                f"read {self.run_dir / 'train.log'}",
            )

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """The first SIGTERM is looked at between two polls, a second one ends the run at once."""
        if self._terminated:
            _interrupt(number, frame)
        self._terminated = True

    def _save_or_end(self) -> None:
        """After a SIGTERM: ask for a save if it would keep steps that are not in a checkpoint yet."""
        saved = self.keeper.latest() or 0 if self.keeper else self._step
        if self._step <= saved or self.options.term_minutes == 0:
            raise Interrupted(signal.SIGTERM.name)
        self._watch.ask_to_save(self._step, "SIGTERM", self.options.term_minutes)

    def _look_at(self, row: dict[str, Any]) -> None:
        """Apply the guards to a logged step, and choose the best checkpoint anew after a validation."""
        self._step = int(row["step"])
        finding = self._watch.look_at(row)
        if self.keeper is not None and validation_values([row], self.keeper.options.metric):
            self.keeper.update(self._validated())
        if finding is not None:
            if self.keeper is None or not finding.save:
                raise _stopped_by(finding)
            self._watch.ask_to_save(finding.step, finding.message, self.options.save_minutes)

    def _validated(self) -> dict[int, float]:
        assert self.keeper is not None
        return validation_values(read_metrics(self.run_dir / "metrics.jsonl"), self.keeper.options.metric)

    def _checkpoint(self) -> Path | None:
        latest = self.keeper.latest() if self.keeper else None
        return self.keeper.path(latest) if self.keeper and latest is not None else None

    def _log_tail(self) -> str:
        """Of what this attempt wrote: the lines that name an error, else the last ones."""
        with (self.run_dir / "train.log").open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join(telling_lines(lines))


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}{' (kill -9, or the kernel was out of memory)' if name == 'SIGKILL' else ''}"


def _stopped_by(finding: Finding) -> TrainingGuardError:
    return TrainingGuardError("a healthy run", f"at step {finding.step}: {finding.message}", finding.fix)


def _headline(row: dict[str, Any]) -> str:
    data = row["data"]
    reward, seconds = data.get("reward/score/mean"), data.get("timing_s/step")
    parts = [f"step {row['step']}"]
    parts += [] if reward is None else [f"reward {reward:.2f}"]
    parts += [] if seconds is None else [f"{seconds:.1f} s"]
    return ", ".join(parts)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)
