"""A small HTTP/1.1 client for many short POSTs at once: kept-alive connections, nothing that a scorer does not need.

General clients spend more time on one request than a local judge spends on its share of a batch. No redirects (they
would carry the key to a host nobody configured), no proxies, no cookies, no compression. Parsing is httptools'.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools


class MalformedReplyError(Exception):
    """What came back is no HTTP."""


class OversizedReplyError(Exception):
    """The body is longer than allowed."""


@dataclass(frozen=True)
class HttpReply:
    """`headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = False
        """Whether it has carried a request before this one."""
        self.reusable = True
        self.heard = False
        self._reply: asyncio.Future[HttpReply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none of its subclasses

    async def exchange(self, request: bytes, timeout_s: float) -> HttpReply:
        """Send, and wait for the whole reply.

        Raises:
            TimeoutError, ConnectionError, MalformedReplyError, OversizedReplyError: and the connection is closed.
        """
        loop = asyncio.get_running_loop()
        self._reply = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size, self.heard = 0, False
        timer = loop.call_later(timeout_s, self._fail, TimeoutError())
        self.transport.write(request)
        try:
            return await self._reply
        except BaseException:  # also when the caller is cancelled: the reply still to come must reach nobody else
            self.reusable = False
            self.transport.abort()
            raise
        finally:
            timer.cancel()
            self.used, self._reply = True, None

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._reply is None:  # nobody asked
            self.reusable = False
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(MalformedReplyError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        framed = "content-length" in getattr(self, "_headers", {}) or "transfer-encoding" in getattr(
            self, "_headers", {}
        )
        if error is None and self.heard and not framed:
            self.on_message_complete()  # a body without a length ends with the connection
        self._fail(error if isinstance(error, ConnectionError) else ConnectionResetError("closed before the reply"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._size += len(data)
        if self._size > self.max_bytes:
            self._fail(OversizedReplyError())

    def on_message_complete(self) -> None:
        if self._reply is None or self._reply.done():
            return
        status = self._parser.get_status_code()
        if status < 200:
            return  # an interim reply
        self.reusable = self.reusable and bool(self._parser.should_keep_alive())
        self._reply.set_result(HttpReply(status, self._headers, b"".join(self._body)))


class HttpClient:
    """Connections to one base URL. Use from one event loop."""

    def __init__(self, base: str, headers: Mapping[str, str], connect_timeout_s: float, max_bytes: int) -> None:
        parts = urlsplit(base)
        self._host, self._prefix = parts.hostname or "", parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        lines = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._connect_timeout_s, self._max_bytes = connect_timeout_s, max_bytes
        self._idle: list[_Connection] = []

    async def post(self, path: str, body: bytes, timeout_s: float) -> HttpReply:
        """POST a body.

        Raises:
            TimeoutError, OSError, MalformedReplyError, OversizedReplyError: no whole reply.
        """
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode("latin-1") + body
        while True:
            connection = self._take() or await self._connect(timeout_s)
            stale = connection.used
            try:
                reply = await connection.exchange(request, timeout_s)
            except ConnectionError:
                if stale and not connection.heard:
                    continue  # the server closed an idle connection just then: nothing was lost but the connection
                raise
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.transport.close()
            return reply

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and not connection.transport.is_closing():
                return connection
        return None

    async def _connect(self, timeout_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        opening = loop.create_connection(
            lambda: _Connection(self._max_bytes), self._host, self._port, ssl=self._tls
        )  # fmt: skip
        try:
            _, connection = await asyncio.wait_for(opening, min(timeout_s, self._connect_timeout_s))
        except TimeoutError as error:
            raise ConnectionError("no connection in time") from error
        return connection

    def close(self) -> None:
        while self._idle:
            self._idle.pop().transport.close()
