"""A server as a child: watched while it comes up, its death noticed at once, ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.backends.server_process import ServerProcess, base_url, claim_port
from medix.errors import ConfigError, EvaluationError, ScorerError

pytestmark = pytest.mark.slow

# Writes down a child of its own, in another session as vLLM's engine may be, then serves /health.
SERVE = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
LIMIT_S = 20


def fake_server(
    code: str, log: Path, limit_s: float = LIMIT_S, port: int | None = None, **more: object
) -> ServerProcess:
    port = port or claim_port("127.0.0.1", 0)
    return ServerProcess([sys.executable, "-S", "-c", code, str(port)], port, log, limit_s, **more)  # type: ignore[arg-type]


def gone(pid: int, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[ServerProcess]:
    server = fake_server(SERVE, tmp_path / "log")
    server.wait_until_healthy()
    yield server
    server.stop(grace_s=1.0)


def test_stopped_with_a_grandchild_in_another_session(running: ServerProcess) -> None:
    grandchild = int(running.log.read_text().split()[0])
    os.kill(grandchild, 0)
    running.stop()
    assert running.exit_code() is not None
    assert gone(grandchild)


@pytest.mark.parametrize(
    ("name", "code", "limit_s", "found"),
    [
        ("dies", "import sys; print('out of memory'); sys.exit(3)", 20, "exit code 3 .*\nout of memory"),
        ("says an error", "print('x\\n' * 50); raise OSError('no room')", 20, "exit code 1.*\nOSError: no room"),
        ("hangs", "import time; time.sleep(60)", 0.5, "not healthy after 0 s"),
    ],
)
def test_a_server_that_does_not_come_up_is_reported_and_stopped(
    tmp_path: Path, name: str, code: str, limit_s: float, found: str
) -> None:
    server = fake_server(code, tmp_path / "log", limit_s)
    start = time.monotonic()
    with pytest.raises(ScorerError, match=found) as caught:
        server.wait_until_healthy()
    assert time.monotonic() - start < LIMIT_S / 2, name
    assert server.exit_code() is not None
    assert str(tmp_path / "log") in caught.value.fix


def test_the_error_is_of_the_kind_its_user_asked_for(tmp_path: Path) -> None:
    server = fake_server("raise SystemExit(1)", tmp_path / "log", error=EvaluationError)
    with pytest.raises(EvaluationError):
        server.wait_until_healthy()


def test_an_earlier_servers_words_are_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("OldError: long mended\n")
    server = fake_server("raise SystemExit('new trouble')", tmp_path / "log")
    with pytest.raises(ScorerError, match="new trouble") as caught:
        server.wait_until_healthy()
    assert "OldError" not in caught.value.found


def test_another_server_on_the_port_is_not_taken_for_ours(running: ServerProcess, tmp_path: Path) -> None:
    port = int(running.url.rpartition(":")[2])
    ours = fake_server(SERVE, tmp_path / "ours", port=port)
    with contextlib.suppress(subprocess.TimeoutExpired):
        ours._child.wait(10)
    with pytest.raises(ScorerError, match="Address already in use"):
        ours.wait_until_healthy()


def test_a_starter_that_is_killed_takes_the_server_along(tmp_path: Path) -> None:
    """Not even a clean-up ran: the kernel ends the server."""
    port = claim_port("127.0.0.1", 0)
    log = tmp_path / "log"
    starter_code = (
        "import sys, time; from pathlib import Path; from evaluation.backends.server_process import ServerProcess\n"
        f"s = ServerProcess([sys.executable, '-S', '-c', {SERVE!r}, '{port}'], {port}, Path({str(log)!r}))\n"
        "s.wait_until_healthy(); print(s._child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", starter_code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        server, grandchild = int(starter.stdout.readline()), int(log.read_text().split()[0])
        starter.send_signal(signal.SIGKILL)
    assert gone(server)
    os.kill(grandchild, signal.SIGKILL)  # a session of its own, which only `stop` would have found


def test_a_port_that_somebody_listens_on_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} on 127.0.0.1"):
            claim_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("::", "http://[::1]:80"),
        ("node-7", "http://node-7:80"),
    ],
)
def test_the_address_for_a_client_on_this_machine(host: str, url: str) -> None:
    assert base_url(host, 80) == url
