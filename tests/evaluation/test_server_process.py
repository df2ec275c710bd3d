"""A server of our own: watched while it comes up, stopped with all its children."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from evaluation.backends.vllm_server import ServerProcess
from medix.errors import EvaluationError

SERVE = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_healthy_then_stopped_with_its_children(tmp_path):
    port = free_port()
    server = ServerProcess([sys.executable, "-c", SERVE, str(port)], port, tmp_path / "log", limit_s=20)
    server.wait_until_healthy()
    child = int((tmp_path / "log").read_text().split()[0])
    os.kill(child, 0)
    server.stop()
    end = time.monotonic() + 5
    while not gone(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert gone(child)


@pytest.mark.parametrize(
    ("name", "code", "limit_s", "found"),
    [
        ("dies", "import sys; print('out of memory'); sys.exit(3)", 20, "exit code 3; its last words: 'out of memory'"),
        ("hangs", "import time; time.sleep(60)", 0.5, "nothing healthy after 0 s"),
    ],
)
def test_a_server_that_does_not_come_up_is_reported_and_stopped(tmp_path, name, code, limit_s, found):
    server = ServerProcess([sys.executable, "-c", code], free_port(), tmp_path / "log", limit_s=limit_s)
    with pytest.raises(EvaluationError, match=found):
        server.wait_until_healthy()
    assert server._child.poll() is not None, name


def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path):
    port = free_port()
    other = ServerProcess([sys.executable, "-c", SERVE, str(port)], port, tmp_path / "other", limit_s=20)
    other.wait_until_healthy()
    try:
        ours = ServerProcess([sys.executable, "-c", SERVE, str(port)], port, tmp_path / "ours", limit_s=20)
        time.sleep(1.0)
        with pytest.raises(EvaluationError, match="exit code 1"):
            ours.wait_until_healthy()
    finally:
        other.stop()
