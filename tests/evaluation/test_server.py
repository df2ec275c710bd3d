"""The server that an evaluation starts: it comes up, its failure is told, and nothing of it stays behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from evaluation.backends.vllm_server import ServerProcess
from medix.errors import EvaluationError

pytestmark = pytest.mark.slow

# Writes down a child of its own, in another session as vLLM's engine may be, and the settings that it got.
SERVE = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, os.environ.get("VLLM_CPU_KVCACHE_SPACE"), os.environ["PYTHONSAFEPATH"], flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(code: str, log: Path, port: int, limit_s: float = 20) -> ServerProcess:
    return ServerProcess([sys.executable, "-S", "-c", code, str(port)], port, log, limit_s)


def test_it_comes_up_with_the_cpus_settings_and_ends_with_all_that_it_started(tmp_path, unused_tcp_port):
    started = server(SERVE, tmp_path / "log", unused_tcp_port)
    started.wait_until_healthy()
    grandchild, space, safe = (tmp_path / "log").read_text().split()
    assert (space == "None") == Path("/dev/nvidiactl").exists()
    assert safe == "1"
    started.stop()
    for _ in range(100):
        try:
            os.kill(int(grandchild), 0)
            if Path(f"/proc/{grandchild}/stat").read_text().split()[2] == "Z":
                break
        except (ProcessLookupError, FileNotFoundError):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the grandchild lives")


@pytest.mark.parametrize(
    ("name", "code", "limit_s", "found"),
    [
        ("dies", "import sys; print('out of memory'); sys.exit(3)", 20, r"exit code 3\. Its log says:\nout of memory"),
        ("says an error", "print('x\\n' * 50); raise OSError('no room')", 20, "says:\nOSError: no room"),
        ("hangs", "import time; time.sleep(60)", 0.5, "not healthy after 0 s"),
    ],
)
def test_a_server_that_does_not_come_up_is_reported_and_stopped(tmp_path, unused_tcp_port, name, code, limit_s, found):
    (tmp_path / "log").write_text("OldError: long mended\n")
    started = server(code, tmp_path / "log", unused_tcp_port, limit_s)
    with pytest.raises(EvaluationError, match=found) as caught:
        started.wait_until_healthy()
    assert "OldError" not in str(caught.value), name
    assert started._child.poll() is not None
