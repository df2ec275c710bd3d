"""What the supervisor keeps in mind of one attempt: its guards, its last sign of life, whether to stop."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from medix_verl.training.guards import Finding, Guard
from medix_verl.training.stop import request_stop
from medix_verl.training.watchdog import WatchdogOptions, guards_of


@dataclass
class Watch:
    """Fed with every logged row; `stop` is the first finding that asked for the end of the run."""

    run_dir: Path
    options: WatchdogOptions
    console: Console
    stop: Finding | None = field(default=None, init=False)
    _guards: list[Guard] = field(init=False)
    _last_sign: float = field(default_factory=time.monotonic, init=False)
    _scored_size: int = field(init=False)
    _save_until: float = field(default=math.inf, init=False)
    _warned_of_stall: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._guards = guards_of(self.options)
        self._scored_size = self._size()

    @property
    def stopped_at(self) -> int | None:
        return self.stop.step if self.stop else None

    def look_at(self, row: dict[str, Any]) -> Finding | None:
        """Apply the guards to a row `{"step", "data"}`; returns the finding that stops the run, when it is made.

        Every finding goes to `guards.jsonl`. After the first that stops the run, none is looked for.
        """
        self._alive()
        # veRL's file logger writes null where a figure is not finite.
        data = {key: math.nan if value is None else value for key, value in row["data"].items()}
        for guard in self._guards if self.stop is None else ():
            finding = guard.check(int(row["step"]), data)
            if finding is None:
                continue
            with (self.run_dir / "guards.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(finding.__dict__) + "\n")
            if finding.level == "stop":
                self.stop = finding
                return finding
            self._say(f"warning, step {finding.step}: {finding.message}")
        return None

    def ask_to_save(self, step: int, message: str, minutes: float) -> None:
        """Ask the driver to end after the step under way, saved, within so many minutes; of two limits the nearer."""
        self._save_until = min(self._save_until, time.monotonic() + 60 * minutes)
        request_stop(self.run_dir, step, message)
        self._say(f"stopping at step {step}: {message}; the step under way is saved, within {minutes:g} minutes")

    def save_is_overdue(self) -> bool:
        """Whether the driver had its time to save after a stop was asked for: it hangs, or its step is too long."""
        return time.monotonic() > self._save_until

    def has_stalled(self) -> bool:
        """Whether neither a response was scored nor a step logged for too long. Half-way there it says so, once."""
        if self._size() != self._scored_size:
            self._scored_size = self._size()
            self._alive()
        quiet = time.monotonic() - self._last_sign
        if quiet > 30 * self.options.stall_minutes and not self._warned_of_stall:
            self._warned_of_stall = True
            self._say(f"warning: no response scored and no step logged for {quiet / 60:.1f} minutes")
        return quiet > 60 * self.options.stall_minutes

    def _alive(self) -> None:
        self._last_sign, self._warned_of_stall = time.monotonic(), False

    def _size(self) -> int:
        scored = self.run_dir / "rollouts" / "scored.jsonl"
        return scored.stat().st_size if scored.exists() else 0

    def _say(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False)
