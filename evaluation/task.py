"""Benchmarks as data: `tasks/*.yaml` say where the rows are, at which revision, and how they are read and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from medix.errors import ConfigError
from medix.options import Texts, read_options, suggest

TASK_DIR = Path(__file__).resolve().parent / "tasks"
GROUPS = ("llm", "vlm", "mmmu")
Rubric = Literal["verdict", "rubric", "report"]


@dataclass(frozen=True)
class Task:
    """One benchmark."""

    name: str
    version: int
    """Raised whenever a change of the file changes what is asked or how it is scored."""
    group: Literal["llm", "vlm", "mmmu", "sample"]
    """The paper averages `llm` and `vlm` together and reports MMMU beside them."""
    loader: str
    """Key of `evaluation.loaders.LOADERS`."""
    summary: str
    dataset: str = ""
    """Hub name; empty where the rows are only ever local."""
    revision: str = ""
    """Commit of the data set; empty only beside an empty `dataset`."""
    config: str = ""
    split: str = ""
    judging: Rubric = "rubric"
    max_tokens: int = 2048
    """Of a response, where the command names no number."""
    credentialed: bool = False
    """The data may not be fetched by a program: only a local path will do."""
    labels: Texts = ()
    """Fixed options, in order."""
    options: dict[str, Any] = field(default_factory=dict)
    """For the loader."""


def load_tasks(folder: Path = TASK_DIR) -> dict[str, Task]:
    """All tasks by name, in alphabetical order of their files.

    Raises:
        ConfigError: a file has an unknown field, a value of the wrong type (YAML's bare yes/no are booleans: quote
            them), or no revision beside its hub name.
    """
    tasks = {}
    for path in sorted(folder.glob("*.yaml")):
        for raw in _documents(path):
            task = read_options(Task, raw, f"evaluation/tasks/{path.name}")
            if task.dataset and not task.revision:
                raise ConfigError(f"a revision in {path.name}", "none", "pin the data set's commit")
            if task.name in tasks:
                raise ConfigError(f"one task named {task.name!r}", f"a second in {path.name}", "rename one")
            tasks[task.name] = task
    return tasks


def _documents(path: Path) -> list[dict[str, Any]]:
    """A file holds one task, or `common` fields and a list of `tasks` that share them."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise ConfigError(f"a mapping in {path.name}", type(raw).__name__, "see evaluation/tasks/sample.yaml")
    if "tasks" not in raw:
        return [raw]
    return [{**raw.get("common", {}), **task} for task in raw["tasks"]]


def select_tasks(names: Sequence[str], tasks: dict[str, Task] | None = None) -> list[Task]:
    """Tasks for `all`, a group or names, each once, in the order asked for; `all` is without the sample set.

    Raises:
        ConfigError: no such task.
    """
    tasks = load_tasks() if tasks is None else tasks
    chosen: dict[str, Task] = {}
    for name in names:
        if name in ("all", *GROUPS):
            wanted = GROUPS if name == "all" else (name,)
            chosen |= {task.name: task for task in tasks.values() if task.group in wanted}
        elif name in tasks:
            chosen[name] = tasks[name]
        else:
            raise ConfigError("tasks that exist", repr(name), suggest(name, [*tasks, "all", *GROUPS]))
    return list(chosen.values())
