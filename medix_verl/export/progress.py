"""What a long export is at: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from medix_verl.export.contract import Progress as Report

EVERY_S: Final = 10.0
_shown: list[Report] = []


def say(stage: str) -> None:
    """What is being done, from a place that was handed no `report`; nothing where nobody shows it."""
    if _shown:
        _shown[-1](stage, 0, 0)


@contextlib.contextmanager
def shown_progress(every_s: float = EVERY_S) -> Iterator[Report]:
    """Shows on stderr what is reported; nothing of work that takes less than `every_s` off a terminal."""
    with _bar() if sys.stderr.isatty() else _lines(every_s) as report:
        _shown.append(report)
        try:
            yield report
        finally:
            _shown.remove(report)


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")

        def report(stage: str, done: int, total: int) -> None:
            progress.update(task, description=f"{stage:<40.40}", completed=done, total=total or None)

        yield report


@contextlib.contextmanager
def _lines(every_s: float) -> Iterator[Report]:
    # A thread, since a proof that loads a model reports nothing for minutes.
    started, ended, latest = time.monotonic(), threading.Event(), ("starting", 0, 1)

    def report(stage: str, done: int, total: int) -> None:
        nonlocal latest
        latest = (stage, done, total)

    def speak() -> None:
        while not ended.wait(every_s):
            stage, done, total = latest
            part = f", {100 * done // total}%" if total else ""
            print(f"export: {time.monotonic() - started:.0f} s, {stage}{part}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield report
    finally:
        ended.set()
        thread.join()
