"""What to do when a scorer fails: try again, hold while it is down, and stop when waiting will not help."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from medix.errors import ScorerError
from medix.scorer.breaker import CircuitBreaker
from medix.scorer.endpoints import EndpointError

T = TypeVar("T")


class Patience:
    """Calls a scorer until it gives a result or until more patience would be wrong.

    - A failure is recorded with the breaker and the call is repeated, up to `tries` times or `deadline_s` seconds.
    - Spent, and the scorer has answered nobody meanwhile: it is down. The breaker opens, and the call holds.
    - Spent, and the scorer has answered others: this one call is what it can not do. That is a ScorerError.
    - Refused (wrong key, wrong model) before it ever answered: the set-up is wrong. That is a ScorerError at once.
    """

    def __init__(self, breaker: CircuitBreaker, tries: int, deadline_s: float) -> None:
        self.breaker, self.tries, self.deadline_s = breaker, tries, deadline_s
        self.failures = 0

    async def get(self, call: Callable[[float], Awaitable[T]]) -> T:
        """The result of `call(seconds_left)`. Time held by the breaker does not count against the deadline.

        Raises:
            ScorerError: as the class says, or the breaker's own after its hold limit.
        """
        spent_s, tried, successes = 0.0, 0, self.breaker.successes
        while True:
            probe = await self.breaker.admit()
            start, ended = time.monotonic(), False
            try:
                result = await call(max(self.deadline_s - spent_s, 0.001))
                ended = True
            except ScorerError as error:
                ended = True
                self._note(error, probe)
                spent_s, tried = spent_s + time.monotonic() - start, tried + 1
                if tried >= self.tries or spent_s >= self.deadline_s:
                    if self.breaker.successes != successes:
                        raise
                    self.breaker.trip()
                    spent_s, tried = 0.0, 0
            else:
                self.breaker.record(True, probe=probe)
                return result
            finally:
                if not ended:  # cancelled, or a fault of our own: free the probe's place
                    self.breaker.record(False, "the call was given up", probe)
            if not self.breaker.is_open:
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(0.25 * 2**tried, 2.0))

    def _note(self, error: ScorerError, probe: bool) -> None:
        self.failures += 1
        self.breaker.record(False, str(error), probe)
        if isinstance(error, EndpointError) and error.kind == "refused" and not self.breaker.successes:
            raise error
