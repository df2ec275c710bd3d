"""Many small jobs at once: a bound on how many are begun, a count on the terminal, and an end when all of them fail."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.status import Status

from medix.errors import EvaluationError

T = TypeVar("T")
R = TypeVar("R")
FATAL_KINDS = ("connect", "timeout", "busy", "server", "unauthorised", "refused", "malformed")
"""Failures that, all in a row, mean that the endpoint is not usable."""


async def run_bounded(jobs: Iterable[T], work: Callable[[T], Awaitable[R]], width: int) -> AsyncIterator[R]:
    """Yield results in the order in which the jobs end. Memory is that of `width` jobs, however many there are."""
    source = iter(jobs)
    running: set[asyncio.Task[R]] = set()
    try:
        while True:
            for job in islice(source, width - len(running)):
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


class Watch(Status):
    """Counts outcomes on the terminal, and ends a stage when only failures of the endpoint come back.

    A dead endpoint is not asked 50,000 times. Nothing is printed when stderr is not a terminal.

    Example:
        >>> with Watch("judge", "judge J", width=4) as watch:
        ...     watch.note(None)
    """

    def __init__(self, stage: str, what: str, width: int) -> None:
        super().__init__(stage, console=Console(stderr=True, quiet=not sys.stderr.isatty()))
        self._stage = stage
        self._what = what
        self._done = 0
        self._recent: deque[bool] = deque(maxlen=max(8, 2 * width))

    def __enter__(self) -> Watch:
        self.start()
        return self

    def note(self, error: Mapping[str, str] | None) -> None:
        """Note one outcome.

        Raises:
            EvaluationError: the last outcomes were all failures of the endpoint, and not of their items.
        """
        self._done += 1
        self.update(f"{self._stage}: {self._done}")
        self._recent.append(error is not None and error["kind"] in FATAL_KINDS)
        if error and len(self._recent) == self._recent.maxlen and all(self._recent):
            raise EvaluationError(
                f"{len(self._recent)} failures in a row from {self._what}, the last: {error['detail'][:200]}",
                "Mend it and run the same command again: what is done stays done.",
            )
