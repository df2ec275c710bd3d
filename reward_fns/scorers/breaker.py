"""A circuit breaker: an outage of a scorer holds the step, is probed with back-off, and past a limit stops the run.

It opens on a failure *rate* over recent calls, not on one failure. While it is open every caller waits; one at a time
may probe with its own request. The first success lets all go on. Held for too long, it breaks for good.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

from medix.errors import ConfigError, ScorerError
from medix.options import Count, NotNegative, Positive, Share

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BreakerOptions:
    """`window` and `min_calls` count calls; `failure_rate` is a share in (0, 1]; the rest are seconds.

    Raises:
        ConfigError: `min_calls` is more than the window ever holds.
    """

    window: Count = 50
    min_calls: Count = 5
    failure_rate: Share = 0.5
    probe_first_s: Positive = 1.0
    probe_max_s: Positive = 30.0
    hold_limit_s: NotNegative = 1800.0

    def __post_init__(self) -> None:
        if self.min_calls > self.window:
            expected = f"medix.scorer.breaker.min_calls at most the window of {self.window} calls"
            raise ConfigError(expected, str(self.min_calls), "lower min_calls, or raise medix.scorer.breaker.window")


class CircuitBreaker:
    """Guards one scorer. Use from one event loop: `await admit()` before a call, `record(ok)` after it.

    Args:
        name: `judge` or `embedder`, for messages.
        address: where it is, for messages.
    """

    REMINDER_S = 300.0
    """How often the log says that an outage goes on."""

    def __init__(self, options: BreakerOptions, name: str, address: str) -> None:
        self.options, self.name, self.address = options, name, address
        self.opened = 0
        """How often it has opened."""
        self.held_s = 0.0
        """Seconds it has been open, outages that are over."""
        self.successes = 0
        self._recent: deque[bool] = deque(maxlen=options.window)
        self._open_since: float | None = None
        self._next_probe = self._probe_wait = self._next_reminder = 0.0
        self._probing = False
        self._changed = asyncio.Event()
        self._last_fault = "no failure recorded"

    @property
    def is_open(self) -> bool:
        return self._open_since is not None

    async def admit(self) -> bool:
        """Return when a call may be made: at once while closed; while open, for one probe at a time (then True).

        Raises:
            ScorerError: the outage has lasted longer than `hold_limit_s`.
        """
        while self._open_since is not None:
            now = time.monotonic()
            if now >= self._open_since + self.options.hold_limit_s:
                raise self._broken()
            if not self._probing and now >= self._next_probe:
                self._probing = True
                return True
            until = self._open_since + self.options.hold_limit_s
            await self._wait((until if self._probing else min(until, self._next_probe)) - now)
        return False

    async def _wait(self, seconds: float) -> None:
        changed = self._changed
        try:
            await asyncio.wait_for(changed.wait(), max(seconds, 0.001))
        except TimeoutError:
            return

    def record(self, ok: bool, fault: str = "", probe: bool = False) -> None:
        """Say how an admitted call ended; `probe` is what `admit` returned for it."""
        self._recent.append(ok)
        self.successes += ok
        self._last_fault = fault or self._last_fault
        if self._open_since is not None:
            self._record_while_open(ok, probe)
        elif len(self._recent) >= self.options.min_calls:
            failed = self._recent.count(False)
            if not ok and failed / len(self._recent) >= self.options.failure_rate:
                self.trip()

    def record_refusal(self, probe: bool = False) -> None:
        """Say that an admitted call was refused for what was sent: no failure, and an outage is over."""
        if self._open_since is not None:
            self._record_while_open(True, probe)

    def trip(self) -> None:
        """Open now."""
        if self._open_since is None:
            self.opened += 1
            self._open_since = time.monotonic()
            self._next_reminder = self._open_since + self.REMINDER_S
            self._probe_wait = self.options.probe_first_s
            self._next_probe = self._open_since + self._probe_wait
            self._probing = False
            self._say(
                f"is out of order: {self._last_fault}. Scoring holds for up to {self.options.hold_limit_s:g} s and "
                f"goes on by itself: bring the {self.name} up at the same address, and leave the run alone"
            )

    def _say(self, what: str) -> None:
        if self.options.hold_limit_s > 0:  # else nothing is held, and the error says it all
            logger.warning("the %s at %s %s", self.name, self.address, what)

    def _record_while_open(self, ok: bool, probe: bool) -> None:
        now = time.monotonic()
        held_s = now - (self._open_since or now)
        if ok:
            self.held_s += held_s
            self._open_since = None
            self._say(f"is back after {held_s:.0f} s: scoring goes on, nothing is lost")
            self._recent.clear()
        elif probe:
            self._probe_wait = min(self._probe_wait * 2, self.options.probe_max_s)
            self._next_probe = now + self._probe_wait
            if now >= self._next_reminder:
                self._next_reminder = now + self.REMINDER_S
                limit = f"the run stops at {self.options.hold_limit_s:g} s"
                self._say(f"is still out of order after {held_s:.0f} s ({limit}): {self._last_fault}")
        else:
            return  # sent before the breaker opened: says nothing new
        self._probing = False
        self._changed.set()
        self._changed = asyncio.Event()

    def _broken(self) -> ScorerError:
        return ScorerError(
            f"the {self.name} at {self.address} to come back within {self.options.hold_limit_s:g} s",
            f"still failing: {self._last_fault}",
            f"bring the {self.name} up and start the same command again: it resumes and repeats no judged call",
        )
