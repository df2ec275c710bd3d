"""A judge that says YES after a set time, made to be faster than any client, so that the client is what is measured.

python benchmarks/mock_judge.py 50      # the first line on stdout is its port
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

_BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"YES"},"finish_reason":"stop"}]}'
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


class Protocol(asyncio.Protocol):
    """One connection: counts the bytes of each request and answers it after the latency."""

    latency_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            at = head.lower().find(b"content-length:")
            if not end or at < 0 or len(rest) < (length := int(head[at + 15 :].split(b"\r\n", 1)[0])):
                return
            self.buffer = rest[length:]
            asyncio.get_running_loop().call_later(Protocol.latency_s, self.transport.write, _REPLY)


async def serve(latency_s: float) -> None:
    Protocol.latency_s = latency_s
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def running(latency_ms: float) -> Iterator[str]:
    """Give the base URL of a mock judge in a process of its own."""
    command = [sys.executable, str(Path(__file__)), str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(float(sys.argv[1]) / 1000))
