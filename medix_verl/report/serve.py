"""`medix report RUN --serve`: the page on the loopback address, made anew whenever the run has gone on."""

from __future__ import annotations

import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from medix.errors import ConfigError
from medix_verl.report.page import render_run
from medix_verl.report.run_folder import input_state, load_run

HOST: Final = "127.0.0.1"
REMAKE_S: Final = 10.0
RENDER_TIMES: Final = 10.0
"""A page rests for so many seconds, and so many times what it took to make: the run needs the processor."""


class LivePage:
    """The current page of a run; safe to ask from several threads.

    Args:
        pace: 1 rests between pages as stated above, 0 does not.
    """

    def __init__(self, run_dir: Path, pace: float = 1.0) -> None:
        self.run_dir, self.pace = run_dir, pace
        self._lock = threading.Lock()
        self._state, self._page, self._rest_until = "", b"", 0.0

    def state(self) -> str:
        """Of the inputs; the page's own until it may be made anew."""
        if self._page and time.monotonic() < self._rest_until:
            return self._state
        return input_state(self.run_dir) or "empty"

    def page(self) -> bytes:
        with self._lock:
            state = self.state()
            if state != self._state:
                start = time.monotonic()
                self._page, self._state = render_run(load_run(self.run_dir), live_state=state), state
                end = time.monotonic()
                self._rest_until = end + self.pace * max(REMAKE_S, RENDER_TIMES * (end - start))
            return self._page


def make_server(run_dir: Path, port: int, pace: float = 1.0) -> ThreadingHTTPServer:
    """A server bound to the loopback address, not yet serving.

    Args:
        port: 0 takes a free one, found then in `server_port`.
        pace: of `LivePage`.

    Raises:
        ConfigError: the port is taken.
    """
    live = LivePage(run_dir, pace)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of another site may have its own name point here: only our own names are answered.
            own = {f"{name}:{server.server_port}" for name in (HOST, "localhost")}
            if self.headers.get("Host") not in own:
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self._answer("text/html; charset=utf-8", live.page())
            elif self.path == "/state":
                self._answer("application/json", json.dumps({"state": live.state()}).encode())
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet: the only reader is the user's own browser."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise ConfigError("a free port", f"port {port}: {error.strerror}", "add --port 0 to take a free one") from error
    return server


def serve_run(run_dir: Path, port: int) -> None:
    """Serve until Ctrl-C."""
    with make_server(run_dir, port) as server:
        print(f"http://{HOST}:{server.server_port}/ follows {run_dir}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
