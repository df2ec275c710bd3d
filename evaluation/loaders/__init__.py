"""Task loaders: each turns the rows of one benchmark into items. A new one is a file here and a line in `LOADERS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from data_prep.records import Refusal
from evaluation.item import Item, with_stable_ids
from evaluation.task import Task
from medix.errors import ConfigError
from medix.options import suggest

Loader = Callable[[Task, Path | None], Iterator[Item | Refusal]]
"""(task, folder with a local copy or None) -> items, streamed: only a few have their images in memory. A row that is
no question is refused, with its reason."""

LOADERS: Final[dict[str, str]] = {
    "sample": "evaluation.loaders.sample:items",
    "mmlu": "evaluation.loaders.text_choice:mmlu",
    "medmcqa": "evaluation.loaders.text_choice:medmcqa",
    "medqa": "evaluation.loaders.text_choice:medqa",
    "usmle": "evaluation.loaders.text_choice:usmle",
    "pubmedqa": "evaluation.loaders.pubmedqa:items",
    "image_question": "evaluation.loaders.image_question:items",
    "slake": "evaluation.loaders.image_question:slake",
    "pmc_vqa": "evaluation.loaders.pmc_vqa:items",
    "mmmu": "evaluation.loaders.mmmu:items",
    "mimic": "evaluation.loaders.mimic:items",
}
"""Name -> `module:function`; imported only when used."""


def load_items(task: Task, local: Path | None = None, limit: int | None = None) -> Iterator[Item | Refusal]:
    """Items of a task, in the order of its source, at most `limit`.

    Args:
        local: folder with the task's files; None reads the hub's cache, or the hub.

    Raises:
        ConfigError: unknown loader; DataError: rows of another shape than the task's.
    """
    if task.loader not in LOADERS:
        raise ConfigError(f"a known loader in task {task.name}", repr(task.loader), suggest(task.loader, LOADERS))
    module, _, function = LOADERS[task.loader].partition(":")
    loader: Loader = getattr(importlib.import_module(module), function)
    return islice(with_stable_ids(loader(task, local)), limit)
