"""What one response asked of the scorers: equal questions are asked once, and everything is kept for the record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from reward_fns.contracts import JudgeRequest, Scorers, Similarity, Verdict

T = TypeVar("T")


class SharedScorers:
    """Implements `Scorers` for the components of one response."""

    def __init__(self, scorers: Scorers) -> None:
        self._scorers = scorers
        self._asked: dict[Any, asyncio.Future[Any]] = {}
        self.verdict: Verdict | None = None
        self.similarity_found: Similarity | None = None
        self.judge_seconds = self.embed_seconds = 0.0

    async def judge(self, request: JudgeRequest) -> Verdict:
        start = time.monotonic()
        self.verdict = await self._once(request, lambda: self._scorers.judge(request))
        self.judge_seconds = max(self.judge_seconds, time.monotonic() - start)
        return self.verdict

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        start = time.monotonic()
        self.similarity_found = await self._once(
            (reference, candidate), lambda: self._scorers.similarity(reference, candidate)
        )
        self.embed_seconds = max(self.embed_seconds, time.monotonic() - start)
        return self.similarity_found

    async def _once(self, key: Any, call: Callable[[], Awaitable[T]]) -> T:
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(call())
        found: T = await asyncio.shield(self._asked[key])
        return found
