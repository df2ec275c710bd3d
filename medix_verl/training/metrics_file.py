"""The run's `metrics.jsonl`: append-only across resumes, one object a step.

veRL's file logger empties its file at every start, so each attempt writes its own file and is copied from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medix.jsonl import GrowingFile
from medix_verl.scored_log import end_half_written_line


def take_over(attempt_files: Iterable[Path], metrics_path: Path) -> None:
    """Append the rows of earlier attempts that their `medix train`, killed meanwhile, had no time to copy."""
    end_half_written_line(metrics_path)
    present = metrics_path.read_text(encoding="utf-8", errors="replace") if metrics_path.exists() else ""
    copied = set(present.splitlines())
    lines = [json.dumps(row) for path in attempt_files for row in GrowingFile(path).new_rows()]
    with metrics_path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines if line not in copied)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`, one a step in order; after a resume the later attempt's row of a step counts.

    A figure that was not finite is None: veRL's file logger writes null for it.
    Unreadable lines (a run killed while writing) are passed over.
    """
    by_step: dict[int, dict[str, Any]] = {}
    if not path.exists():
        return []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            step, data = int(row["step"]), dict(row["data"])
        except (ValueError, KeyError, TypeError):
            continue
        by_step.setdefault(step, {}).update(data)
    return [{"step": step, "data": data} for step, data in sorted(by_step.items())]
