"""A judge that says YES after a set time: `python benchmarks/mock_judge.py --latency-ms 50`.

It is made to be faster than any client, so that what is measured is the client. The first line on stdout is its port.
"""

from __future__ import annotations

import argparse
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

    def __init__(self, latency_s: float) -> None:
        self.latency_s, self.buffer = latency_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none of its subclasses

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            at = head.lower().find(b"content-length:")
            if not end or at < 0:
                return
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            asyncio.get_running_loop().call_later(self.latency_s, self.reply)

    def reply(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_REPLY)


async def main(latency_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(latency_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def running(latency_ms: float) -> Iterator[str]:
    """Base URL of a mock judge in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--latency-ms", str(latency_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().latency_ms / 1000))
