"""Starts a training command, copies its metrics, applies the guards, and ends it cleanly whatever happens."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import Progress

from medix.errors import TrainingGuardError
from medix.scored_log import end_half_written_line
from medix.supervise.guards import Finding, Guard, default_guards
from medix.supervise.metrics_file import AttemptReader
from medix.supervise.processes import RUN_MARK, end_processes

POLL_S = 0.5
LOG_TAIL_LINES = 15


class Interrupted(Exception):
    """The user asked to stop (Ctrl-C or SIGTERM)."""


@dataclass
class Supervisor:
    """Watches one attempt of a run.

    Args:
        run_dir: gets `metrics.jsonl`, `train.log`, `attempts/`.
        total_steps: for the progress bar only.
        stall_minutes: end the run when neither a step was logged nor a response scored for so long.
    """

    run_dir: Path
    total_steps: int | None = None
    stall_minutes: float = 30.0
    guards: list[Guard] = field(default_factory=default_guards)
    console: Console = field(default_factory=lambda: Console(stderr=True))
    _log_start: int = field(default=0, init=False)
    """Bytes of `train.log` that earlier attempts wrote."""

    def run(self, command: Sequence[str]) -> None:
        """Run the command to its end.

        Raises:
            TrainingGuardError: a guard stopped it, it stalled, or it failed by itself.
            Interrupted: on Ctrl-C or SIGTERM, after every process of the run has ended.
        """
        attempts = self.run_dir / "attempts"
        attempts.mkdir(parents=True, exist_ok=True)
        attempt_file = attempts / f"{len(list(attempts.iterdir())):03d}.jsonl"
        mark = uuid.uuid4().hex
        environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(attempt_file.resolve()), RUN_MARK: mark}
        previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with (self.run_dir / "train.log").open("ab") as log:
                self._log_start = log.tell()
                process = subprocess.Popen(
                    list(command), stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
                self._watch(process, AttemptReader(attempt_file))
        finally:
            # A second Ctrl-C must not cut the clean-up short.
            for number in previous:
                signal.signal(number, signal.SIG_IGN)
            end_processes(mark)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _watch(self, process: subprocess.Popen[bytes], reader: AttemptReader) -> None:
        last_sign, metrics_path = time.monotonic(), self.run_dir / "metrics.jsonl"
        scored = self.run_dir / "rollouts" / "scored.jsonl"
        scored_size = _size(scored)
        end_half_written_line(metrics_path)
        progress = Progress(console=self.console, transient=True, disable=not self.console.is_terminal)
        with progress, metrics_path.open("a") as metrics_file:
            task = progress.add_task("starting veRL, Ray and vLLM", total=self.total_steps)
            while True:
                ended = process.poll() is not None
                for row in reader.new_rows():
                    last_sign = time.monotonic()
                    metrics_file.write(json.dumps(row) + "\n")
                    metrics_file.flush()
                    progress.update(task, completed=row["step"], description=_headline(row))
                    self._apply_guards(row)
                if _size(scored) != scored_size:
                    scored_size, last_sign = _size(scored), time.monotonic()
                if ended:
                    break
                if time.monotonic() - last_sign > 60 * self.stall_minutes:
                    raise TrainingGuardError(
                        f"a logged step or a scored response every {self.stall_minutes:g} minutes",
                        f"neither for that long; last lines of the log:\n{self._log_tail()}",
                        "see the log above; starting the same command again resumes from the last checkpoint",
                    )
                time.sleep(POLL_S)
        if process.returncode != 0:
            raise TrainingGuardError(
                "veRL to end with exit code 0",
                f"exit code {process.returncode}; what it said:\n{self._log_tail()}",
                f"read {self.run_dir / 'train.log'}; starting the same command again resumes",
            )

    def _apply_guards(self, row: dict[str, Any]) -> None:
        # veRL's file logger writes null where a figure is not finite.
        data = {key: math.nan if value is None else value for key, value in row["data"].items()}
        for guard in self.guards:
            finding = guard.check(int(row["step"]), data)
            if finding is None:
                continue
            self._record(finding)
            if finding.level == "stop":
                raise TrainingGuardError("a healthy run", f"at step {finding.step}: {finding.message}", finding.fix)
            self.console.print(f"warning, step {finding.step}: {finding.message}", style="yellow", markup=False)

    def _record(self, finding: Finding) -> None:
        with (self.run_dir / "guards.jsonl").open("a") as file:
            file.write(json.dumps(finding.__dict__) + "\n")

    def _log_tail(self) -> str:
        """Of what this attempt wrote: the lines that name an error, else the last ones."""
        with (self.run_dir / "train.log").open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-400:]
        errors = [line for line in lines if "Error" in line and "Traceback" not in line]
        return "\n".join((errors or lines)[-LOG_TAIL_LINES:])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _headline(row: dict[str, Any]) -> str:
    data = row["data"]
    reward, seconds = data.get("reward/score/mean"), data.get("timing_s/step")
    parts = [f"step {row['step']}"]
    parts += [] if reward is None else [f"reward {reward:.2f}"]
    parts += [] if seconds is None else [f"{seconds:.1f} s"]
    return ", ".join(parts)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)
