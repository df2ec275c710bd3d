"""A circuit breaker: an outage of a scorer holds the step, is probed with back-off, and past a limit stops the run.

It opens on a failure *rate* over recent calls, not on one failure. While it is open every caller waits; one at a time
may probe with its own request. The first success lets all go on. Held for too long, it breaks for good.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from medix.errors import ScorerError


@dataclass(frozen=True)
class BreakerOptions:
    """`window` and `min_calls` count calls; `failure_rate` is a share in (0, 1]; the rest are seconds."""

    window: int = 50
    min_calls: int = 5
    failure_rate: float = 0.5
    probe_first_s: float = 1.0
    probe_max_s: float = 30.0
    hold_limit_s: float = 1800.0


class CircuitBreaker:
    """Guards one scorer. Use from one event loop: `await admit()` before a call, `record(ok)` after it."""

    def __init__(self, options: BreakerOptions, name: str) -> None:
        self.options, self.name = options, name
        self.opened = 0
        """How often it has opened."""
        self.held_s = 0.0
        """Seconds it has been open, outages that are over."""
        self.successes = 0
        self._recent: deque[bool] = deque(maxlen=options.window)
        self._open_since: float | None = None
        self._next_probe = self._probe_wait = 0.0
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
        except (TimeoutError, asyncio.TimeoutError):
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

    def trip(self) -> None:
        """Open now."""
        if self._open_since is None:
            self.opened += 1
            self._open_since = time.monotonic()
            self._probe_wait = self.options.probe_first_s
            self._next_probe = self._open_since + self._probe_wait
            self._probing = False

    def _record_while_open(self, ok: bool, probe: bool) -> None:
        now = time.monotonic()
        if ok:
            self.held_s += now - (self._open_since or now)
            self._open_since = None
            self._recent.clear()
        elif probe:
            self._probe_wait = min(self._probe_wait * 2, self.options.probe_max_s)
            self._next_probe = now + self._probe_wait
        else:
            return  # sent before the breaker opened: says nothing new
        self._probing = False
        self._changed.set()
        self._changed = asyncio.Event()

    def _broken(self) -> ScorerError:
        return ScorerError(
            f"the {self.name} to come back within {self.options.hold_limit_s:g} s",
            f"still failing: {self._last_fault}",
            f"bring the {self.name} up and start the same command again: it resumes and repeats no judged call",
        )
