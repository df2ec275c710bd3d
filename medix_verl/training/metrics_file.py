"""The run's `metrics.jsonl`: append-only across resumes, one object a step.

veRL's file logger empties its file at every start, so each attempt writes its own file and is copied from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medix.jsonl import JsonLines, JsonlWriter


def take_over(attempt_files: Iterable[Path], metrics_path: Path) -> None:
    """Append the rows of earlier attempts that their `medix train`, killed meanwhile, had no time to copy."""
    present = [row for _, row in JsonLines(metrics_path)]
    with JsonlWriter(metrics_path) as file:
        for path in attempt_files:
            for _, row in JsonLines(path):
                if row not in present:
                    file.append(row)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.jsonl`, one a step in order; after a resume the later attempt's row counts.

    A figure that was not finite is None: veRL's file logger writes null for it. Lines that can not be read, as a run
    that was killed while writing leaves them, are passed over.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for _, row in JsonLines(path):
        if isinstance(row.get("step"), int) and isinstance(row.get("data"), dict):
            by_step.setdefault(row["step"], {}).update(row["data"])
    return [{"step": step, "data": data} for step, data in sorted(by_step.items())]
