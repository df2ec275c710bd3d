"""The run's `metrics.jsonl`: append-only across resumes, one object a step.

veRL's file logger empties its file at every start, so each attempt writes its own file and is copied from there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


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
