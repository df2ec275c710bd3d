"""Rows of a benchmark's tables, streamed, from a local folder or from the hub at the task's revision."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.images import MAX_BYTES
from data_prep.records import ImageRef, Refusal, Unfit
from data_prep.sources import tables
from evaluation.item import LETTERS, Item
from evaluation.task import Task
from medix.errors import ConfigError, DataError

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Row:
    """One row and the table it stands in."""

    values: Mapping[str, Any]
    table: Path
    number: int


def task_items(
    task: Task,
    local: Path | None,
    patterns: Sequence[str],
    columns: tuple[str, ...],
    make: Callable[[Task, Row], Item | None],
) -> Iterator[Item | Refusal]:
    """Items of all tables that match; a row that `make` cannot read becomes a refusal, None leaves it out.

    Args:
        patterns: globs below the task's folder, the first that matches anything is taken.

    Raises:
        DataError: no table, or one that lacks a column or cannot be read: a benchmark is never scored in part unseen.
    """
    root = local_copy(task, local, patterns)
    found = next((files for pattern in patterns if (files := sorted(root.glob(pattern)))), [])
    if not found:
        raise DataError(f"{patterns[0]} of task {task.name}", f"none below {root}", f"--data {task.name}=FOLDER")
    for table in found:
        for chunk in tables.plan(table, task.split, ROWS_AT_ONCE):
            try:
                for number, values in tables.rows(chunk, columns):
                    yield from _made(task, values, table, number, make)
            except Unfit as unfit:
                raise DataError(
                    f"a whole table of task {task.name}", f"{table.name}: {unfit}", "fetch it anew"
                ) from unfit


def _made(
    task: Task, values: Mapping[str, Any] | Unfit, table: Path, number: int, make: Callable[[Task, Row], Item | None]
) -> Iterator[Item | Refusal]:
    place = f"{table.name}:{number}"
    try:
        if isinstance(values, Unfit):
            raise values
        item = make(task, Row(values, table, number))
    except Unfit as unfit:
        yield Refusal(task.name, place, unfit.reason, unfit.detail)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        # A row of an unforeseen shape is the row's fault; the type of the error says enough.
        yield Refusal(task.name, place, "bad_field", f"{type(error).__name__}: {error}"[:160])
    else:
        if item is not None:
            yield item


def local_copy(task: Task, local: Path | None, patterns: Sequence[str]) -> Path:
    """Folder with the task's files: the one given, or the hub's snapshot at the pinned revision.

    Raises:
        ConfigError: credentialed data without a folder, or no way to fetch the rest.
    """
    if local is not None:
        return local
    fix = f"--data {task.name}=FOLDER with a copy of {task.dataset or 'the data'}"
    if task.credentialed or not task.dataset:
        raise ConfigError(f"a local copy of {task.name}", "none: this data needs its owner's permission", fix)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return _cached_snapshot(task, fix)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ConfigError("huggingface_hub", "not installed", fix) from error
    # The first pattern is the hub's own layout; a wider one would fetch files that nobody reads.
    wanted = [patterns[0], *task.options.get("also", ())]
    return Path(snapshot_download(task.dataset, repo_type="dataset", revision=task.revision, allow_patterns=wanted))


def _cached_snapshot(task: Task, fix: str) -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    folder = home / "hub" / f"datasets--{task.dataset.replace('/', '--')}" / "snapshots" / task.revision
    if not folder.is_dir():
        raise ConfigError(f"the data of {task.name}", f"HF_HUB_OFFLINE=1 and nothing at {folder}", fix)
    return folder


def choice_item(task: Task, row_id: str, question: str, options: Mapping[str, Any], letter: str, **more: Any) -> Item:
    """A choice item from lettered options; empty ones fall away and the others keep their order.

    Raises:
        Unfit: fewer than two options, or the right letter is none of them.
    """
    kept = [(name, str(text).strip()) for name, text in options.items() if text is not None and str(text).strip()]
    names = [name for name, _ in kept]
    if len(kept) < 2 or letter not in names:
        raise Unfit("no_answer", f"{letter!r} is none of the options {', '.join(names)}"[:120])
    place = names.index(letter)
    return Item(
        task=task.name,
        id=row_id,
        question=question,
        reference=kept[place][1],
        kind="choice",
        choices=tuple(text for _, text in kept),
        letter=LETTERS[place],
        **more,
    )


def image_bytes(refs: Sequence[ImageRef]) -> tuple[bytes, ...]:
    """Encoded bytes of the images.

    Raises:
        Unfit: one is missing, outside its folder, or too large.
    """
    return tuple(ref.read(MAX_BYTES) for ref in refs)
