"""The one policy for a call that fails: ask again, hold while the scorer is down, stop when waiting is no use."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from medix.errors import ScorerError

logger = logging.getLogger(__name__)
T = TypeVar("T")
FaultKind = Literal[
    "connect", "timeout", "busy", "server", "setup", "refused", "filtered", "malformed", "oversized", "unusable"
]
CONTENT_STATUSES = (400, 413, 422)
"""Refusals of what was sent (too long, an unknown field, its content), by a server that is up."""
REMINDER_S = 300.0
"""How often the log says that an outage goes on."""


class EndpointError(ScorerError):
    """An endpoint did not answer, or not usably.

    Args:
        kind: `refused` is a 4xx but 408 and 429, `filtered` a refusal for the content of what was sent, `setup` a wrong
            certificate, host name or protocol, `unusable` a reply in which no answer could be read.
        status: the HTTP status, 0 where there was none.
        retry_after_s: what the server asks to wait.
        final: whether asking again can not help.
    """

    is_after_answers = False
    """Whether the endpoint, or another of its pool, has answered before."""

    def __init__(
        self,
        problem: str,
        fix: str,
        kind: FaultKind = "server",
        status: int = 0,
        retry_after_s: float = 0.0,
        final: bool = False,
        found: str = "",
    ) -> None:
        super().__init__(problem, fix, found=found or problem)
        self.kind, self.status, self.retry_after_s, self.final = kind, status, retry_after_s, final

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.kind, self.status, self.retry_after_s, self.final, self.found)
        return type(self), (self.problem, self.fix, *state)

    @property
    def is_of_the_sample(self) -> bool:
        """Whether this one sample is refused by a scorer that answers others, which is no failure of the scorer."""
        return self.kind == "filtered" or (self.is_after_answers and self.status in CONTENT_STATUSES)


class Slots:
    """Bound the calls in flight. A rate limit halves the bound and pauses all; answers raise it again, one by one."""

    def __init__(self, most: int) -> None:
        self.most, self.limit, self.used, self.peak = most, float(most), 0, 0
        self._rest_until = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        try:
            while (pause := self._rest_until - time.monotonic()) > 0 or self.used >= int(self.limit):
                if pause > 0:
                    await asyncio.sleep(pause * random.uniform(1.0, 1.2))
                else:
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(turn)
                    await turn
        except asyncio.CancelledError:
            self._wake_next()  # this caller may have been given the turn already
            raise
        self.used += 1
        self.peak = max(self.peak, self.used)
        if self.used < int(self.limit):
            self._wake_next()

    async def __aexit__(self, *_: object) -> None:
        self.used -= 1
        self._wake_next()

    def _wake_next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                return turn.set_result(None)

    def slow_down(self, pause_s: float) -> None:
        now = time.monotonic()
        if now >= self._rest_until:  # calls that were refused together count once
            self.limit = max(1.0, self.limit / 2)
        self._rest_until = max(self._rest_until, now + pause_s)

    def speed_up(self) -> None:
        self.limit = min(float(self.most), self.limit + 1 / self.limit)


class RetryPolicy:
    """Run calls to one scorer. Use from one event loop.

    - What asking again can not mend is raised at once: a refusal of what was sent, a wrong key or address at the start.
    - A rate limit (429) slows all calls down and is waited for.
    - Any other failure is repeated `retries` times with growing, jittered waits. Then it is this call's own fault if
      others were answered since its failure before, or if its replies were read and were no answers: it is raised.
    - Otherwise the scorer is down: the call holds, and asks again at most every `backoff_max_s`; the log says so every
      few minutes. After `hold_limit_s` seconds of asking and waiting the call is raised, and the run stops.

    Args:
        name: `judge` or `embedder`, for messages.
        address: where it is, for messages.
        waits: seconds before the first repetition, and at most.
        hold_limit_s: 0 holds nothing: a failure is raised when its retries are spent.
    """

    def __init__(
        self, name: str, address: str, retries: int, slots: Slots, waits: tuple[float, float], hold_limit_s: float
    ) -> None:
        self.name, self.address, self.slots, self.hold_limit_s = name, address, slots, hold_limit_s
        self._retries, self._waits = retries, waits
        self.failures = self.outages = 0
        """Calls that failed, without refusals of one sample; outages."""
        self.held_s = 0.0
        """Seconds of the outages that are over."""
        self._answered_at = self._next_reminder = 0.0
        self._down_since: float | None = None

    @property
    def is_down(self) -> bool:
        """Whether an outage goes on."""
        return self._down_since is not None

    async def run(self, call: Callable[[float], Awaitable[T]], limit_s: float | None = None) -> T:
        """Return what `call(seconds_left)` returns.

        Args:
            limit_s: seconds for all tries and waits of this call, without the time in our own queue. The call then
                holds nothing. None: `hold_limit_s`.

        Raises:
            ScorerError: as the class says.
        """
        holds = limit_s is None and self.hold_limit_s > 0
        limit = limit_s if limit_s is not None else self.hold_limit_s or float("inf")
        spent_s, failures, failed_at, was_held = 0.0, 0, float("inf"), False
        while True:
            async with self.slots:
                start = time.monotonic()
                try:
                    result = await call(limit - spent_s)
                except ScorerError as error:
                    fault = error if isinstance(error, EndpointError) else EndpointError(error.problem, error.fix)
                else:
                    self._answered()
                    return result
            now = time.monotonic()
            self.failures += not fault.is_of_the_sample
            others_are_answered = self._answered_at > failed_at
            if was_held and others_are_answered:  # the outage is over: what failed in it counts against no call
                failures, was_held = 0, False
            failures += fault.kind != "busy" or limit == float("inf")
            is_spent = failures > self._retries
            if fault.final or (is_spent and (not holds or others_are_answered or fault.kind == "unusable")):
                raise fault
            was_held = was_held or is_spent
            failed_at = now
            longest = min(self._waits[1], self._waits[0] * 2.0 ** min(failures, 30))
            wait = max(fault.retry_after_s, random.uniform(longest / 2, longest))
            spent_s += now - start + wait
            if spent_s >= limit:
                raise self._given_up(fault) if holds else fault
            if fault.kind == "busy":
                self.slots.slow_down(wait)
            elif is_spent and self._down_since is None:
                self._down_since = now
                self.outages += 1
            if is_spent or fault.kind == "busy":
                self._remind(fault, now)
            if fault.kind != "busy":  # else the slots pause
                await asyncio.sleep(wait)

    def _answered(self) -> None:
        self._answered_at = now = time.monotonic()
        self.slots.speed_up()
        if self._down_since is not None:
            held_s, self._down_since = now - self._down_since, None
            self.held_s += held_s
            self._next_reminder = 0.0
            logger.warning("The %s at %s is back after %.0f s. Nothing is lost.", self.name, self.address, held_s)

    def _remind(self, fault: EndpointError, now: float) -> None:
        if now < self._next_reminder:
            return
        self._next_reminder = now + REMINDER_S
        if fault.kind == "busy":
            does = f"asks for fewer requests, {int(self.slots.limit)} at once for now"
        else:
            does = f"is out of order since {now - (self._down_since or now):.0f} s"
        logger.warning(
            "The %s at %s %s: %s Scoring waits for up to %g s and goes on by itself: %s.",
            *(self.name, self.address, does, fault.problem, self.hold_limit_s, self._remedy(fault)),
        )

    def _remedy(self, fault: EndpointError) -> str:
        if fault.kind == "busy":
            return f"raise its limit, or lower medix.scorer.{self.name}.max_in_flight"
        return f"bring the {self.name} up at the same address"

    def _given_up(self, fault: EndpointError) -> ScorerError:
        return ScorerError(
            f"The {self.name} at {self.address} gave no answer within {self.hold_limit_s:g} s: {fault.problem}",
            f"First {self._remedy(fault)}. Then start the same command again: what was judged is in the cache "
            f"(medix.scorer.cache.path). {fault.fix}",
            found=fault.found,
        )
