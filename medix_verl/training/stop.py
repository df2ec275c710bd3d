"""How a run is stopped for a reason: asked for by the supervisor, heard by the driver, written down first of all.

`stop_request.json` asks; `MedixCheckpointCallback`, in veRL's driver, sees it and has the step under way saved where
veRL itself saves. `stop_reason.json` and the first line of `train.log` then say why the run has ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from medix.errors import TrainingGuardError

REQUEST, REASON = "stop_request.json", "stop_reason.json"


def clear_stop(run_dir: Path) -> None:
    """Forget the last attempt's stop; `guards.jsonl` remembers it."""
    for name in (REQUEST, REASON):
        (run_dir / name).unlink(missing_ok=True)


def request_stop(run_dir: Path, step: int, message: str) -> None:
    _write(run_dir / REQUEST, {"step": step, "reason": message})


def stop_requested(run_dir: Path) -> bool:
    return (run_dir / REQUEST).exists()


def record_stop(run_dir: Path, error: TrainingGuardError, step: int | None, checkpoint: Path | None) -> None:
    """Write `stop_reason.json`, and the reason as the first line of `train.log`.

    Args:
        step: the step at which a guard stopped the run; None where no step did (a stall, a crash).
        checkpoint: the folder from which the same command resumes; None: it starts anew.
    """
    resume = str(checkpoint) if checkpoint else None
    reason = {"reason": error.found, "expected": error.expected, "fix": error.fix, "step": step, "checkpoint": resume}
    _write(run_dir / REASON, reason)
    found = " ".join(error.found.split())
    line = f"STOPPED: expected {error.expected}; found {found}. Checkpoint: {resume or 'none yet'}. Fix: {error.fix}"
    _write_first(run_dir / "train.log", " ".join(line.split()))


def _write(path: Path, content: Mapping[str, object]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _write_first(log: Path, line: str) -> None:
    """Put a line before all others; the log is never without its contents under its name."""
    temporary = log.with_suffix(".part")
    with temporary.open("wb") as out:
        out.write(line.encode("utf-8", errors="backslashreplace") + b"\n")
        if log.exists():
            with log.open("rb") as old:
                shutil.copyfileobj(old, out)
    temporary.replace(log)
