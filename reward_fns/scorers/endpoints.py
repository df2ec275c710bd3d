"""A pool of HTTP endpoints that speak JSON: least-loaded choice, bounded concurrency, bounded patience.

Only what another try can mend is retried: 429, 5xx and a failed connection. A time-out is not: the server may still be
working on the request, and sending it again would double its load.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from medix.errors import ConfigError, ScorerError
from medix.options import Count, CountOrZero, NotNegative, Positive, Texts, check_options
from reward_fns.scorers.http import HttpClient, HttpReply, MalformedReplyError, OversizedReplyError
from reward_fns.scorers.rule_judge import RULE_JUDGE_URL, RuleJudgeModel

_encode = json.JSONEncoder(ensure_ascii=False).encode

FaultKind = Literal["connect", "timeout", "busy", "server", "refused", "malformed", "oversized"]
CONTENT_STATUSES = (400, 413, 422)
"""Refusals of what was sent (too long, an unknown field), by a server that is up."""


class EndpointError(ScorerError):
    """An endpoint did not answer, or not usably.

    `kind` says how. `refused` (HTTP 4xx but 408 and 429) means that the request or the set-up is wrong.
    """

    def __init__(
        self,
        expected: str,
        found: str,
        fix: str,
        kind: FaultKind = "server",
        status: int = 0,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(expected, found, fix)
        self.kind, self.status, self.retry_after_s = kind, status, retry_after_s

    @property
    def retryable(self) -> bool:
        return self.kind in ("connect", "busy", "server")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expected, self.found, self.fix, self.kind, self.status, self.retry_after_s)


@dataclass(frozen=True)
class EndpointOptions:
    """How to reach a service. `urls` are bases such as `http://host:8000`; a trailing `/v1` is allowed."""

    urls: Texts = ()
    api_key_env: str = ""
    """Name of the environment variable that holds the key; the key itself is never configured or logged."""
    max_in_flight: Count = 256
    timeout_s: Positive = 60.0
    """Seconds one try may take from the first byte sent to the last received."""
    connect_timeout_s: Positive = 5.0
    retries: CountOrZero = 4
    """Further tries after the first, on 429, 5xx and connection failures only."""
    backoff_s: NotNegative = 0.5
    backoff_max_s: NotNegative = 10.0
    max_reply_bytes: Count = 1_048_576


@dataclass(frozen=True)
class EndpointReply:
    """`data` is the decoded JSON object; `latency_s` is of the try that succeeded."""

    data: Mapping[str, Any]
    url: str
    latency_s: float
    attempts: int


class Deadline:
    """Seconds for all tries and waits of one call. They begin with its first slot: our own queue is nobody's fault."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began: float | None = None

    def begin(self) -> None:
        if self._began is None:
            self._began = time.monotonic()

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began if self._began is not None else 0.0

    @property
    def left_s(self) -> float:
        return self._seconds - self.spent_s


class EndpointPool:
    """Use from one event loop; `await aclose()` at the end.

    Raises:
        ConfigError: no URL or a wrong one, a number out of its range, or a key that is not set or can not be one.
    """

    COOLING_S = 5.0
    """How long an endpoint that failed is passed over while others are there: who fails at once looks least loaded."""

    def __init__(self, options: EndpointOptions, where: str = "medix.scorer.judge") -> None:
        if not options.urls:
            raise ConfigError(f"at least one address in {where}.urls", "none", f"set {where}.urls=[http://HOST:PORT]")
        bad = [url for url in options.urls if not _is_address(url)]
        if bad:
            raise ConfigError(f"http(s) addresses in {where}.urls", repr(bad[0]), "write it as http://HOST:PORT")
        check_options(options, where)
        self.options = options
        self._where = where
        self._bases = [url.rstrip("/").removesuffix("/v1") for url in options.urls]
        self._load = dict.fromkeys(self._bases, 0)
        self._cold_until = dict.fromkeys(self._bases, 0.0)
        self._slots = asyncio.Semaphore(options.max_in_flight)
        headers = {"Content-Type": "application/json", **self._authorisation()}
        limits = options.connect_timeout_s, options.max_reply_bytes
        self._rules = RuleJudgeModel() if RULE_JUDGE_URL in self._bases else None
        addresses = [base for base in self._bases if base != RULE_JUDGE_URL]
        self._clients = {base: HttpClient(base, headers, *limits) for base in addresses}
        self.tries = self.retried = 0
        self._in_flight = self.peak_in_flight = 0

    def _authorisation(self) -> dict[str, str]:
        name = self.options.api_key_env
        if not name:
            return {}
        key = os.environ.get(name, "").strip()  # a key read from a file brings its line end
        if not key:
            raise ConfigError(f"a key in the environment variable {name}", "none", f"export {name}=...")
        if not (key.isascii() and key.isprintable()):
            expected = f"a key of printable ASCII in the environment variable {name}"
            raise ConfigError(expected, "other characters in it", f"export {name}=... again, on one line")
        return {"Authorization": f"Bearer {key}"}

    async def post(
        self, path: str, payload: Mapping[str, Any], deadline: Deadline | float | None = None
    ) -> EndpointReply:
        """POST JSON, get a JSON object.

        Args:
            path: below the base, e.g. `/v1/chat/completions`.
            deadline: for all tries and waits together, a number in seconds; None for no limit but the tries' own.

        Raises:
            EndpointError: after the last try, or at the deadline.
        """
        body = _encode(payload).encode(errors="replace")  # a lone surrogate is no UTF-8
        if not isinstance(deadline, Deadline):
            deadline = Deadline(float("inf") if deadline is None else deadline)
        for attempt in range(self.options.retries + 1):
            try:
                async with self._slots:
                    deadline.begin()
                    return await self._try(path, body, deadline.left_s, attempt + 1)
            except EndpointError as error:
                wait = self._backoff(attempt, error)
                last = attempt == self.options.retries or wait >= deadline.left_s
                if last or not error.retryable:
                    raise
            self.retried += 1
            await asyncio.sleep(wait)
        raise AssertionError("the loop above returns or raises")

    def _backoff(self, attempt: int, error: EndpointError) -> float:
        ceiling = min(self.options.backoff_max_s, self.options.backoff_s * 2**attempt)
        return max(min(error.retry_after_s, self.options.backoff_max_s), random.uniform(ceiling / 2, ceiling))

    def _least_loaded(self) -> str:
        now = time.monotonic()
        return min(self._bases, key=lambda base: (self._cold_until[base] > now, self._load[base]))

    async def _try(self, path: str, body: bytes, left_s: float, attempt: int) -> EndpointReply:
        if left_s <= 0:
            raise self._fault("a reply before the deadline", "none in time", "timeout")
        base = self._least_loaded()
        self._load[base] += 1
        self.tries += 1
        self._in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        start = time.monotonic()
        try:
            data = await self._exchange(base, path, body, min(self.options.timeout_s, left_s))
        except EndpointError as error:
            if error.status not in CONTENT_STATUSES:
                self._cold_until[base] = time.monotonic() + max(self.COOLING_S, error.retry_after_s)
            raise
        finally:
            self._load[base] -= 1
            self._in_flight -= 1
        return EndpointReply(data, base, time.monotonic() - start, attempt)

    async def _exchange(self, base: str, path: str, body: bytes, timeout_s: float) -> Mapping[str, Any]:
        """One request's JSON, or what went wrong with it as an EndpointError."""
        if base == RULE_JUDGE_URL:
            assert self._rules is not None
            status, answer = self._rules.complete(json.loads(body))
            if status != 200:
                raise self._status_fault(base, HttpReply(status, {}, _encode(answer).encode()))
            return answer
        try:
            reply = await self._clients[base].post(path, body, timeout_s)
        except TimeoutError as error:
            raise self._fault(f"a reply from {base} in {self.options.timeout_s:g} s", "none", "timeout") from error
        except OSError as error:
            raise self._fault(f"a connection to {base}", str(error) or type(error).__name__, "connect") from error
        except MalformedReplyError as error:
            raise self._fault(f"an HTTP reply from {base}", str(error), "malformed") from error
        except OversizedReplyError as error:
            expected = f"a reply of at most {self.options.max_reply_bytes} bytes"
            raise self._fault(expected, "a longer one", "oversized") from error
        if reply.status != 200:
            raise self._status_fault(base, reply)
        return self._decode(reply.body, base)

    def _status_fault(self, base: str, reply: HttpReply) -> EndpointError:
        status = reply.status
        kind: FaultKind = "busy" if status == 429 else "server" if status >= 500 or status == 408 else "refused"
        fixes = {401: f"check the key in ${self.options.api_key_env or '(api_key_env is not set)'}"}
        fixes |= {403: fixes[401], 404: f"check {self._where}.urls and the model's name"}
        found = f"HTTP {status}: {reply.body[:300].decode(errors='replace')!r}"
        fix = fixes.get(status, f"see the log of {base}")
        after = reply.headers.get("retry-after", "")
        return EndpointError("HTTP 200", found, fix, kind, status, float(after) if after.isdecimal() else 0.0)

    def _decode(self, raw: bytes, base: str) -> Mapping[str, Any]:
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise self._fault(f"JSON from {base}", repr(raw[:120]), "malformed") from error
        if not isinstance(data, dict):
            raise self._fault(f"a JSON object from {base}", type(data).__name__, "malformed")
        return data

    def _fault(self, expected: str, found: str, kind: FaultKind) -> EndpointError:
        return EndpointError(expected, found, f"check that {', '.join(self._bases)} is up ({self._where}.urls)", kind)

    async def aclose(self) -> None:
        for client in self._clients.values():
            client.close()


def _is_address(url: str) -> bool:
    if url == RULE_JUDGE_URL:
        return True
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is none
        return False
    plain = url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
