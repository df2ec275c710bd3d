"""The metrics of a run as series: what was logged at which step, finite numbers only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix_verl.training.metrics_file import read_metrics
from reward_fns.composite import FLAGS

SCORE: Final = "score"
UNWEIGHTED: Final = -1.0
KNOWN_COMPONENTS: Final = ("llm_accuracy", "embed_accuracy", "modality", "format")
"""Shown first and in this order; components of one's own follow by name."""
_NOT_COMPONENTS: Final = {SCORE, "acc", "judge_yes_probability", "embed_similarity", *FLAGS}
_MEAN = re.compile(r"reward/([^/]+)/mean")
_VALIDATION = re.compile(r"val-(?:core|aux)/(.+)/([^/]+)/mean@\d+")


@dataclass(frozen=True)
class Series:
    """A metric by step; both lists have the same length, steps ascend."""

    steps: list[int]
    values: list[float]

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def last(self) -> float | None:
        return self.values[-1] if self.values else None


class Metrics:
    """All series of a run.

    Args:
        rows: `{"step": int, "data": {...}}`, ascending, as `read_metrics` gives them.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.keys = sorted({key for row in rows for key in row["data"]})

    def series(self, key: str) -> Series:
        """The metric `key`; empty where it was never logged. NaN and infinity are left out, as gaps."""
        points = [(int(row["step"]), row["data"][key]) for row in self.rows if _finite(row["data"].get(key))]
        return Series([step for step, _ in points], [float(value) for _, value in points])

    def components(self) -> list[str]:
        """Reward components that were logged."""
        found = {match[1] for key in self.keys if (match := _MEAN.fullmatch(key)) and is_component(match[1])}
        return [name for name in KNOWN_COMPONENTS if name in found] + sorted(found - set(KNOWN_COMPONENTS))

    def validation(self) -> dict[tuple[str, str], Series]:
        """(data source, `acc` or `score` or a component) -> series.

        veRL averages a component over all rows, those where it does not apply (-1) too; `charts` mends that from the
        rollouts. A component without weight, -1 throughout, is left out.
        """
        wanted = {"acc", SCORE, *KNOWN_COMPONENTS, *self.components()}
        keys = {(m[1], m[2]): key for key in self.keys if (m := _VALIDATION.fullmatch(key)) and m[2] in wanted}
        found = {name: self.series(key) for name, key in sorted(keys.items())}
        return {name: series for name, series in found.items() if any(value != UNWEIGHTED for value in series.values)}

    @property
    def training_steps(self) -> list[int]:
        return self.series(f"reward/{SCORE}/mean").steps

    @property
    def last_step(self) -> int | None:
        return int(self.rows[-1]["step"]) if self.rows else None


def is_component(name: str) -> bool:
    """Whether a key of the flat reward record is a component's value, not a total, a flag or a latency."""
    return name not in _NOT_COMPONENTS and not name.endswith(("_ok", "_seconds"))


def load_metrics(run_dir: Path) -> Metrics:
    """The run's `metrics.jsonl`; unreadable lines are passed over, a missing file is a run without metrics."""
    try:
        rows = read_metrics(run_dir / "metrics.jsonl")
    except (OSError, ValueError, OverflowError):
        rows = []
    return Metrics(rows)


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
