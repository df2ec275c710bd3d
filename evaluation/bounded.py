"""Run many small jobs at once with a bound on how many are begun, taking new ones only as old ones end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from medix.errors import EvaluationError

T = TypeVar("T")
R = TypeVar("R")


async def run_bounded(jobs: Iterable[T], work: Callable[[T], Awaitable[R]], width: int) -> AsyncIterator[R]:
    """Results in the order in which the jobs end. Memory is that of `width` jobs, however many there are."""
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


class GiveUp:
    """Ends a stage when only failures of the endpoint come back: a dead one is not asked 50,000 times."""

    def __init__(self, what: str, width: int) -> None:
        self.what = what
        self._recent: deque[bool] = deque(maxlen=max(8, 2 * width))

    def note(self, fatal: bool, detail: str) -> None:
        """Note one outcome.

        Raises:
            EvaluationError: the last outcomes were all failures of the endpoint.
        """
        self._recent.append(fatal)
        if len(self._recent) == self._recent.maxlen and all(self._recent):
            raise EvaluationError(
                f"an answer from {self.what}",
                f"{len(self._recent)} failures in a row, the last: {detail[:200]}",
                "mend it and run the same command again: what is done stays done",
            )
