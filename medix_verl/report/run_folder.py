"""Everything that a run folder holds for the page. Each part is optional, and each file may be damaged or foreign."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from medix.errors import DataError
from medix.files import lookup, open_inside, read_mapping
from medix.jsonl import JsonLines
from medix_verl.report.rollouts import Group, read_groups
from medix_verl.training.metrics_file import read_metrics
from reward_fns.composite import FLAGS

SCORE: Final = "score"
KNOWN_COMPONENTS: Final = ("llm_accuracy", "embed_accuracy", "modality", "format")
"""Shown first and in this order; components of one's own follow by name."""
_NOT_COMPONENTS: Final = {SCORE, "acc", "judge_yes_probability", "embed_similarity", *FLAGS}
_MEAN = re.compile(r"reward/([^/]+)/mean")
_VALIDATION = re.compile(r"val-(?:core|aux)/(.+)/(acc|score)/mean@\d+")
RUN_FILES: Final = ("metrics.jsonl", "config.yaml", "rollouts/scored.jsonl")
"""A folder that holds none of these is no run."""


@dataclass(frozen=True)
class Series:
    """A metric by step; both lists have the same length, steps ascend."""

    steps: list[int]
    values: list[float]

    def __bool__(self) -> bool:
        return bool(self.steps)


class Metrics:
    """All series of a run.

    Args:
        rows: `{"step": int, "data": {...}}`, ascending, as `read_metrics` returns them.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.keys = sorted({key for row in rows for key in row["data"]})

    def series(self, key: str) -> Series:
        """Return the metric `key`; empty if it was never logged. NaN and infinity are left out, as gaps."""
        points = [(int(row["step"]), row["data"][key]) for row in self.rows if _is_finite(row["data"].get(key))]
        return Series([step for step, _ in points], [float(value) for _, value in points])

    def components(self) -> list[str]:
        """Return the names of the reward components that were logged."""
        return in_order(match[1] for key in self.keys if (match := _MEAN.fullmatch(key)) and is_component(match[1]))

    def validation(self) -> dict[tuple[str, str], Series]:
        """Return (data source, `acc` or `score`) -> series."""
        keys = {(match[1], match[2]): key for key in self.keys if (match := _VALIDATION.fullmatch(key))}
        return {name: self.series(key) for name, key in sorted(keys.items())}

    @property
    def last_step(self) -> int | None:
        return int(self.rows[-1]["step"]) if self.rows else None


def is_component(name: str) -> bool:
    """Whether a key of the flat reward record is a component's value, not a total, a flag or a latency."""
    return name not in _NOT_COMPONENTS and not name.endswith(("_ok", "_seconds"))


def in_order(names: Iterable[str]) -> list[str]:
    """Return the components in the order in which pages show them."""
    found = set(names)
    return [name for name in KNOWN_COMPONENTS if name in found] + sorted(found - set(KNOWN_COMPONENTS))


@dataclass
class RunFolder:
    """What was read of a run. `notes` lists what was missing, half written or unreadable; the page shows it."""

    path: Path
    metrics: Metrics
    groups: list[Group]
    guards: list[dict[str, str]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    reward_table: list[dict[str, str]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    last_written: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def held_out(self, name: str) -> Series:
        """Return a score of the validation responses by step, averaged over those to which it applies."""
        found: dict[int, list[float]] = {}
        for group in self.validation_groups:
            found.setdefault(group.step, []).extend(r.scores[name] for r in group.responses if name in r.scores)
        means = {step: sum(values) / len(values) for step, values in found.items() if values}
        return Series(list(means), list(means.values()))

    @property
    def training_groups(self) -> list[Group]:
        return [group for group in self.groups if group.is_training]

    @property
    def validation_groups(self) -> list[Group]:
        return [group for group in self.groups if not group.is_training]


def load_run(path: Path) -> RunFolder:
    """Read a run folder. What its files hold never raises; it becomes a note.

    Raises:
        DataError: the folder holds no file of a training run.
    """
    refuse_what_is_no_run(path)
    notes = [f"{name}: not there (yet); left out" for name in RUN_FILES if not (path / name).exists()]
    notes += [f"{name}: empty" for name in RUN_FILES if (path / name).is_file() and not (path / name).stat().st_size]
    config = _mapping(path, "config.yaml", notes)
    scored = own_file(path, "rollouts/scored.jsonl", notes)
    times = [(path / name).stat().st_mtime for name in RUN_FILES if (path / name).exists()]
    return RunFolder(
        path=path,
        metrics=load_metrics(path, notes),
        groups=read_groups(scored, notes, divide_by_std(config)) if scored else [],
        guards=[_texts(row, ("level", "step", "message", "fix")) for row in _rows(path, "guards.jsonl", notes)],
        config=config,
        versions=_mapping(path, "versions.json", notes),
        reward_table=_reward_table(path, notes),
        summary=_mapping(path, "summary.json", notes),
        last_written=datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds"),
        notes=notes,
    )


def refuse_what_is_no_run(path: Path) -> None:
    """Raise a DataError for a folder that holds no file of a training run, and for what is no folder."""
    if not path.is_dir():
        raise DataError(f"There is no folder {path}.", "Name the folder of a run, e.g. outputs/demo.")
    if not any((path / name).is_file() for name in RUN_FILES):
        raise DataError(
            f"{path} is not the folder of a training run: it holds none of {', '.join(RUN_FILES)}.",
            "Name the folder of a run, e.g. outputs/demo. Prepared data and evaluations have pages of their own.",
        )


def load_metrics(path: Path, notes: list[str] | None = None) -> Metrics:
    """Return the run's `metrics.jsonl`. Unreadable lines are skipped with a note; a missing file has no metrics."""
    notes = [] if notes is None else notes
    if not _rows(path, "metrics.jsonl", notes):
        return Metrics([])
    try:
        return Metrics(read_metrics(path / "metrics.jsonl"))
    except (ValueError, OverflowError):
        notes.append("metrics.jsonl: unreadable, left out")
        return Metrics([])


def own_file(folder: Path, name: str, notes: list[str]) -> Path | None:
    """Return the path of a file of the run, or None if it is missing or leads out of the folder (with a note)."""
    try:
        open_inside(folder, name).close()
    except FileNotFoundError:
        return None
    except (OSError, DataError) as error:
        notes.append(f"{name}: left out, it can not be read inside of the run's folder ({type(error).__name__})")
        return None
    return folder / name


def evaluated(path: Path, notes: list[str]) -> Iterator[tuple[str, str, tuple[str, str, str], dict[str, Any]]]:
    """Yield (name, task, (items, score, 95 % interval), all of scores.json) of each `medix eval` in a run's `eval/`."""
    for file in sorted((path / "eval").glob("*/scores.json")):
        name = file.parent.name
        scores = _mapping(path, f"eval/{file.parent.name}/scores.json", notes)
        tasks = scores.get("tasks")
        for task, result in tasks.items() if isinstance(tasks, Mapping) else ():
            figures = [lookup(result, f"estimate.{key}") for key in ("mean", "low", "high")]
            if all(_is_finite(figure) for figure in figures):
                mean, low, high = (f"{figure:.1%}" for figure in figures)
                items = lookup(result, "items")
                yield name, str(task), ("" if items is None else str(items), mean, f"{low} to {high}"), scores


def divide_by_std(config: Mapping[str, Any]) -> bool:
    """Whether the run divided advantages by the standard deviation of their group, as GRPO does by default."""
    return lookup(config, "algorithm.norm_adv_by_std_in_grpo") is not False


def _mapping(folder: Path, name: str, notes: list[str]) -> dict[str, Any]:
    path = own_file(folder, name, notes)
    try:
        return read_mapping(path) if path else {}
    except DataError:
        notes.append(f"{name}: unreadable, left out")
        return {}


def _reward_table(folder: Path, notes: list[str]) -> list[dict[str, str]]:
    path = own_file(folder, "reward_table.json", notes)
    try:
        rows = json.loads(path.read_text(encoding="utf-8", errors="replace")) if path else []
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        notes.append("reward_table.json: unreadable, left out")
        return []
    return [_texts(row, ("component", "weight", "effective")) for row in rows if isinstance(row, dict)]


def _rows(folder: Path, name: str, notes: list[str]) -> list[dict[str, Any]]:
    path = own_file(folder, name, notes)
    lines = JsonLines(path or folder / "missing")
    rows = [row for _, row in lines]
    notes += filter(None, [lines.note()])
    return rows


def _texts(row: Mapping[str, Any], fields: Sequence[str]) -> dict[str, str]:
    values = {name: row.get(name, "") for name in fields}
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
