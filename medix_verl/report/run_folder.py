"""Everything that a run folder holds for the page, each part optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from medix.jsonl import JsonLines
from medix_verl.report.lines import read_mapping
from medix_verl.report.rollouts import Group, read_groups
from medix_verl.report.series import Metrics, load_metrics

GUARD_FIELDS: Final = ("level", "step", "message", "fix")
TABLE_FIELDS: Final = ("component", "weight", "effective")


@dataclass
class RunFolder:
    """What was read of a run. `notes` lists what was missing, half written or unreadable, for the page to say."""

    path: Path
    metrics: Metrics
    groups: list[Group]
    guards: list[dict[str, str]]
    config: dict[str, Any]
    versions: dict[str, Any]
    reward_table: list[dict[str, str]]
    summary: dict[str, Any]
    last_written: str
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def training_groups(self) -> list[Group]:
        return [group for group in self.groups if group.is_training]

    @property
    def validation_groups(self) -> list[Group]:
        return [group for group in self.groups if not group.is_training]


def load_run(path: Path) -> RunFolder:
    """Read a run folder; never raises for what is in it."""
    notes: list[str] = []
    metrics_lines = JsonLines(path / "metrics.jsonl")
    for _ in metrics_lines:
        pass
    guard_lines = JsonLines(path / "guards.jsonl")
    guards = [_texts(finding, GUARD_FIELDS) for _, finding in guard_lines]
    notes += [note for lines in (metrics_lines, guard_lines) if (note := lines.note())]
    for name in ("metrics.jsonl", "rollouts/scored.jsonl", "config.yaml", "versions.json"):
        if not (path / name).is_file():
            notes.append(f"{name}: not there (yet); what it would show is left out")
    table = read_mapping(path / "reward_table.json", notes)
    config = read_mapping(path / "config.yaml", notes)
    divide_by_std = lookup(config, "algorithm.norm_adv_by_std_in_grpo") is not False
    return RunFolder(
        path=path,
        metrics=load_metrics(path),
        groups=read_groups(path / "rollouts" / "scored.jsonl", notes, divide_by_std),
        guards=guards,
        config=config,
        versions=read_mapping(path / "versions.json", notes),
        reward_table=[_texts(row, TABLE_FIELDS) for row in table.get("rows", []) if isinstance(row, dict)],
        summary=read_mapping(path / "summary.json", notes),
        last_written=_last_written(path),
        notes=notes,
    )


def lookup(config: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = config
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def input_state(path: Path) -> str:
    """Changes whenever an input of the page does: sizes and times of the files that a run appends to."""
    files = [path / name for name in ("metrics.jsonl", "guards.jsonl", "rollouts/scored.jsonl", "summary.json")]
    states = [file.stat() for file in files if file.exists()]
    return "-".join(f"{state.st_size:x}.{state.st_mtime_ns:x}" for state in states)


def _texts(row: Mapping[str, Any], fields: Sequence[str]) -> dict[str, str]:
    """The named fields as text, empty where there is none."""
    values = {name: row.get(name, "") for name in fields}
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def _last_written(path: Path) -> str:
    files = [path / "metrics.jsonl", path / "rollouts" / "scored.jsonl"]
    times = [file.stat().st_mtime for file in files if file.exists()]
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds") if times else ""
