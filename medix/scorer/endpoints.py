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

from medix.errors import ConfigError, ScorerError
from medix.scorer.http import HttpClient, HttpReply, MalformedReplyError, OversizedReplyError

_encode = json.JSONEncoder(ensure_ascii=False).encode

FaultKind = Literal["connect", "timeout", "busy", "server", "refused", "malformed", "oversized"]


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

    urls: tuple[str, ...] = ()
    api_key_env: str = ""
    """Name of the environment variable that holds the key; the key itself is never configured or logged."""
    max_in_flight: int = 256
    timeout_s: float = 60.0
    """Seconds one try may take from the first byte sent to the last received."""
    connect_timeout_s: float = 5.0
    retries: int = 4
    """Further tries after the first, on 429, 5xx and connection failures only."""
    backoff_s: float = 0.5
    backoff_max_s: float = 10.0
    max_reply_bytes: int = 1_048_576


@dataclass(frozen=True)
class EndpointReply:
    """`data` is the decoded JSON object; `latency_s` is of the try that succeeded."""

    data: Mapping[str, Any]
    url: str
    latency_s: float
    attempts: int


class EndpointPool:
    """Use from one event loop; `await aclose()` at the end.

    Raises:
        ConfigError: no URL, or `api_key_env` names a variable that is not set.
    """

    COOLING_S = 5.0
    """How long an endpoint whose connection failed is passed over while others are there."""

    def __init__(self, options: EndpointOptions, where: str = "medix.scorer.judge") -> None:
        if not options.urls:
            raise ConfigError(f"at least one address in {where}.urls", "none", f"set {where}.urls=[http://HOST:PORT]")
        bad = [url for url in options.urls if not url.startswith(("http://", "https://"))]
        if bad:
            raise ConfigError(f"http(s) addresses in {where}.urls", repr(bad[0]), "write it as http://HOST:PORT")
        if options.max_in_flight < 1:
            raise ConfigError(f"{where}.max_in_flight >= 1", str(options.max_in_flight), "raise it")
        self.options = options
        self._where = where
        self._bases = [url.rstrip("/").removesuffix("/v1") for url in options.urls]
        self._load = dict.fromkeys(self._bases, 0)
        self._cold_until = dict.fromkeys(self._bases, 0.0)
        self._slots = asyncio.Semaphore(options.max_in_flight)
        headers = {"Content-Type": "application/json", **self._authorisation()}
        limits = options.connect_timeout_s, options.max_reply_bytes
        self._clients = {base: HttpClient(base, headers, *limits) for base in self._bases}
        self.tries = self.retried = 0
        self._in_flight = self.peak_in_flight = 0

    def _authorisation(self) -> dict[str, str]:
        name = self.options.api_key_env
        if not name:
            return {}
        key = os.environ.get(name, "")
        if not key:
            raise ConfigError(f"a key in the environment variable {name}", "none", f"export {name}=...")
        return {"Authorization": f"Bearer {key}"}

    async def post(self, path: str, payload: Mapping[str, Any], deadline_s: float | None = None) -> EndpointReply:
        """POST JSON, get a JSON object.

        Args:
            path: below the base, e.g. `/v1/chat/completions`.
            deadline_s: seconds for all tries and waits together; None for no limit but the tries' own.

        Raises:
            EndpointError: after the last try, or at the deadline.
        """
        body = _encode(payload).encode()
        end: float | None = None
        for attempt in range(self.options.retries + 1):
            try:
                async with self._slots:
                    if end is None:  # patience starts with the first slot: waiting in our own queue is nobody's fault
                        end = time.monotonic() + deadline_s if deadline_s is not None else float("inf")
                    return await self._try(path, body, end - time.monotonic(), attempt + 1)
            except EndpointError as error:
                wait = self._backoff(attempt, error)
                last = attempt == self.options.retries or time.monotonic() + wait >= (end or 0.0)
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
            reply = await self._clients[base].post(path, body, min(self.options.timeout_s, left_s))
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise self._fault(f"a reply from {base} in {self.options.timeout_s:g} s", "none", "timeout") from error
        except OSError as error:
            self._cold_until[base] = time.monotonic() + self.COOLING_S
            raise self._fault(f"a connection to {base}", str(error) or type(error).__name__, "connect") from error
        except MalformedReplyError as error:
            raise self._fault(f"an HTTP reply from {base}", str(error), "malformed") from error
        except OversizedReplyError as error:
            expected = f"a reply of at most {self.options.max_reply_bytes} bytes"
            raise self._fault(expected, "a longer one", "oversized") from error
        finally:
            self._load[base] -= 1
            self._in_flight -= 1
        if reply.status != 200:
            raise self._status_fault(base, reply)
        return EndpointReply(self._decode(reply.body, base), base, time.monotonic() - start, attempt)

    def _status_fault(self, base: str, reply: HttpReply) -> EndpointError:
        status = reply.status
        kind: FaultKind = "busy" if status == 429 else "server" if status >= 500 or status == 408 else "refused"
        fixes = {401: f"check the key in ${self.options.api_key_env or '(api_key_env is not set)'}"}
        fixes |= {403: fixes[401], 404: f"check {self._where}.urls and the model's name"}
        found = f"HTTP {status}: {reply.body[:300].decode(errors='replace')!r}"
        fix = fixes.get(status, f"see the log of {base}")
        after = reply.headers.get("retry-after", "")
        return EndpointError("HTTP 200", found, fix, kind, status, float(after) if after.isdigit() else 0.0)

    def _decode(self, raw: bytes, base: str) -> Mapping[str, Any]:
        try:
            data = json.loads(raw)
        except ValueError as error:
            raise self._fault(f"JSON from {base}", repr(raw[:120]), "malformed") from error
        if not isinstance(data, dict):
            raise self._fault(f"a JSON object from {base}", type(data).__name__, "malformed")
        return data

    def _fault(self, expected: str, found: str, kind: FaultKind) -> EndpointError:
        return EndpointError(expected, found, f"check that {', '.join(self._bases)} is up ({self._where}.urls)", kind)

    async def aclose(self) -> None:
        for client in self._clients.values():
            client.close()
