"""A server as a child process: watched while it comes up, stopped with every process it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from medix.errors import ConfigError, MedixError, ScorerError
from medix.processes import RUN_MARK, die_with_parent, end_processes

START_LIMIT_S = 1800.0
"""A large model on slow disks takes many minutes; a server that died is noticed at once."""
POLL_S = 0.25
TAIL_LINES = 15


class ServerProcess:
    """A child with a health address, in its own process group so that its workers end with it.

    Args:
        port: where it will listen; the command has to name it too.
        host: the address to ask for its health.
        environment: added to this process's own.
        error: raised for a server that does not come up.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        limit_s: float = START_LIMIT_S,
        *,
        host: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        error: type[MedixError] = ScorerError,
    ) -> None:
        self.url, self.log, self._limit_s, self._error = base_url(host, port), log, limit_s, error
        self._mark = uuid.uuid4().hex
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._child = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **(environment or {}), RUN_MARK: self._mark},
                preexec_fn=die_with_parent,
            )
        self._end = time.monotonic() + limit_s

    def wait_until_healthy(self) -> None:
        """Poll `is_up` until it is."""
        while not self.is_up():
            time.sleep(POLL_S)

    def is_up(self) -> bool:
        """Whether `/health` answers by now.

        Raises:
            MedixError: of the class `error`: the child ended, or was not healthy within the limit; it is stopped then.
        """
        if self._healthy():
            return True
        code = self.exit_code()
        if code is not None:
            raise self.failure("the server to come up", f"exit code {code}")
        if time.monotonic() > self._end:
            raise self.failure("the server to come up", f"nothing healthy after {self._limit_s:.0f} s")
        return False

    def failure(self, expected: str, found: str) -> MedixError:
        """The error that names the end of the log; the server is stopped."""
        self.stop()
        return self._error(expected, f"{found}; its last words:\n{self.last_words()}", f"read {self.log}")

    def exit_code(self) -> int | None:
        """None while the child lives."""
        return self._child.poll()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                # Another server on this port may have answered: ours is dead then, or about to be.
                return bool(response.status == 200) and self.exit_code() is None
        except (urllib.error.URLError, OSError):
            return False

    def last_words(self) -> str:
        """Of what this child wrote: the last lines that name an error, else the last lines."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = [line[:300] for line in log.read()[-50_000:].decode(errors="replace").strip().splitlines()]
        errors = [line for line in lines if "Error" in line and "Traceback" not in line]
        return "\n".join((errors or lines)[-TAIL_LINES:])

    def ask_to_stop(self) -> None:
        """Without waiting for it; `stop` does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGTERM)

    def stop(self, grace_s: float = 20.0) -> None:
        """End the whole group, asked first and killed after the grace, then whatever left the group."""
        for sign, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self._child.pid, sign)
            except ProcessLookupError:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience_s)
        self._child.poll()
        end_processes(self._mark, grace_s=1.0)


def base_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a server that was told to listen on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{f'[{reachable}]' if ':' in reachable and not reachable.startswith('[') else reachable}:{port}"


def claim_port(host: str, port: int) -> int:
    """`port` where it is free on `host`, or a free one for 0.

    Raises:
        ConfigError: somebody listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fix = "choose another --port (0 takes a free one), or stop what listens there"
            raise ConfigError(f"port {port} free on {host}", error.strerror or str(error), fix) from error
        return int(probe.getsockname()[1])
