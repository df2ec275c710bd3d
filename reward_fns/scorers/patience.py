"""What to do when a scorer fails: try again, hold while it is down, and stop when waiting will not help."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from medix.errors import ScorerError
from reward_fns.scorers.breaker import CircuitBreaker
from reward_fns.scorers.endpoints import CONTENT_STATUSES, Deadline, EndpointError

T = TypeVar("T")


class Patience:
    """Calls a scorer until it gives a result or until more patience would be wrong.

    - A failure is recorded with the breaker and the call is repeated, up to `tries` times or `deadline_s` seconds.
    - Spent, and the scorer has answered nobody since the failure before: it is down. The breaker opens, the call holds.
    - Spent, and the scorer has answered others: this one call is what it can not do. That is a ScorerError.
    - Refused (wrong key, wrong model) before it ever answered: the set-up is wrong. That is a ScorerError at once, as
      is a refusal of what was sent (too long) at any time: the same bytes would be refused again. The breaker counts
      that as no failure: who refuses is up.
    - What fails while the breaker is open is the outage's fault, and counts against no call.
    """

    def __init__(self, breaker: CircuitBreaker, tries: int, deadline_s: float) -> None:
        self.breaker, self.tries, self.deadline_s = breaker, tries, deadline_s
        self.failures = 0

    async def get(self, call: Callable[[Deadline], Awaitable[T]]) -> T:
        """The result of `call(deadline)`. Time held by the breaker does not count against the deadline.

        Raises:
            ScorerError: as the class says, or the breaker's own after its hold limit.
        """
        spent_s, tried, opened = 0.0, 0, self.breaker.opened
        answered: int | None = None  # by the scorer, to anybody, when this call last failed
        while True:
            probe = await self.breaker.admit()
            deadline, ended = Deadline(max(self.deadline_s - spent_s, 0.001)), False
            try:
                result = await call(deadline)
                ended = True
            except ScorerError as error:
                ended = True
                self._note(error, probe)
                if self.breaker.is_open or opened != self.breaker.opened:
                    spent_s, tried, opened = 0.0, 0, self.breaker.opened
                else:
                    spent_s, tried = spent_s + deadline.spent_s, tried + 1
                    if tried >= self.tries or spent_s >= self.deadline_s:
                        if answered is not None and self.breaker.successes != answered:
                            raise
                        self.breaker.trip()
                answered = self.breaker.successes
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
        if isinstance(error, EndpointError) and error.status in CONTENT_STATUSES:
            self.breaker.record_refusal(probe)
            raise error
        self.breaker.record(False, str(error), probe)
        if isinstance(error, EndpointError) and error.kind == "refused" and not self.breaker.successes:
            raise error
