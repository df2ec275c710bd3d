"""Stop a run for a reason: the supervisor asks, veRL's driver hears it, and the reason is written down.

`stop_request.json` asks; `MedixCheckpointCallback`, in veRL's driver, sees it and has the step under way saved where
veRL itself saves. `stop_reason.json` and the last line of `train.log` then say why the run has ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from medix.errors import TrainingGuardError
from medix.files import write_atomically

REQUEST, REASON = "stop_request.json", "stop_reason.json"


def clear_stop(run_dir: Path) -> None:
    """Forget the last attempt's stop; `guards.jsonl` remembers it."""
    for name in (REQUEST, REASON):
        (run_dir / name).unlink(missing_ok=True)


def request_stop(run_dir: Path, step: int, message: str) -> None:
    """Ask veRL's driver to end after the step under way."""
    _write_json(run_dir / REQUEST, {"step": step, "reason": message})


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
    _write_json(run_dir / REASON, {"reason": error.problem, "fix": error.fix, "step": step, "checkpoint": resume})
    line = " ".join(f"STOPPED: {error.problem} Checkpoint: {resume or 'none yet'}. Fix: {error.fix}".split())
    with (run_dir / "train.log").open("ab") as log:
        log.write(line.encode("utf-8", "backslashreplace") + b"\n")


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")
