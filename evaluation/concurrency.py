"""Many small jobs at once: a bound on how many are begun, a count on the terminal, and an end when all of them fail."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from rich.console import Console
from rich.status import Status

from medix.errors import EvaluationError

T = TypeVar("T")
R = TypeVar("R")


async def run_bounded(jobs: Iterable[T], work: Callable[[T], Awaitable[R]], width: int) -> AsyncIterator[R]:
    """Yield results in the order in which the jobs end. Memory is that of `width` jobs, however many there are."""
    source = iter(jobs)
    running: set[asyncio.Task[R]] = set()
    try:
        while True:
            while len(running) < width:
                try:
                    job = next(source)
                except StopIteration:
                    break
                running.add(asyncio.ensure_future(work(job)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Watch:
    """Counts outcomes on the terminal, and ends a stage when only failures of the endpoint come back.

    A dead endpoint is not asked 50,000 times. Nothing is printed when stderr is not a terminal.

    Example:
        >>> watch = Watch("judge", "judge J", width=4)
        >>> with watch:
        ...     watch.note(fatal=False, detail="")
    """

    def __init__(self, stage: str, what: str, width: int) -> None:
        self.stage, self.what, self.done = stage, what, 0
        self._recent: deque[bool] = deque(maxlen=max(8, 2 * width))
        self._status = Status(stage, console=Console(stderr=True)) if sys.stderr.isatty() else None

    def __enter__(self) -> Watch:
        if self._status is not None:
            self._status.start()
        return self

    def note(self, fatal: bool, detail: str) -> None:
        """Note one outcome; `fatal` says that it speaks against the endpoint and not against the item.

        Raises:
            EvaluationError: the last outcomes were all failures of the endpoint.
        """
        self.done += 1
        if self._status is not None:
            self._status.update(f"{self.stage}: {self.done}")
        self._recent.append(fatal)
        if len(self._recent) == self._recent.maxlen and all(self._recent):
            raise EvaluationError(
                f"{len(self._recent)} failures in a row from {self.what}, the last: {detail[:200]}",
                "Mend it and run the same command again: what is done stays done.",
            )

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
