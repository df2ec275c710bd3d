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
from medix.files import last_lines
from medix.processes import RUN_MARK, child_environment, die_with_parent, end_processes

START_LIMIT_S = 1800.0
"""A large model on slow disks takes many minutes; a server that died is noticed at once."""
POLL_S = 0.25


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
        log.unlink(missing_ok=True)
        with log.open("xb") as output:
            self._child = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=child_environment(**(environment or {}), **{RUN_MARK: self._mark}),
                preexec_fn=die_with_parent,
            )
        self._end = time.monotonic() + limit_s

    def wait_until_healthy(self) -> None:
        """Poll `is_up` until it is."""
        while not self.is_up():
            time.sleep(POLL_S)

    def is_up(self) -> bool:
        """Return whether `/health` answers by now.

        Raises:
            MedixError: of the class `error`: the child ended, or was not healthy within the limit; it is stopped then.
        """
        if self._healthy():
            return True
        code = self.exit_code()
        if code is not None:
            raise self.failure(f"The server ended with exit code {code} before it was up.")
        if time.monotonic() > self._end:
            raise self.failure(f"The server was not healthy after {self._limit_s:.0f} s.")
        return False

    def failure(self, problem: str) -> MedixError:
        """Stop the server and return the error that shows the end of its log."""
        self.stop()
        return self._error(f"{problem} Its log ends with:\n{self.last_words()}\n", f"Read {self.log}.")

    def exit_code(self) -> int | None:
        """Return the exit code, or None while the child lives."""
        return self._child.poll()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                # Another server on this port may have answered: ours is dead then, or about to be.
                return bool(response.status == 200) and self.exit_code() is None
        except (urllib.error.URLError, OSError):
            return False

    def last_words(self) -> str:
        """Return the last lines of the log that name an error; without any, its last lines."""
        lines = last_lines(self.log, 400).splitlines()
        errors = [line for line in lines if "Error" in line and "Traceback" not in line]
        return "\n".join((errors or lines)[-15:])

    def ask_to_stop(self) -> None:
        """Ask the group to stop, without waiting for it; `stop` waits."""
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
    """Return where a client on this machine reaches a server that was told to listen on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{f'[{reachable}]' if ':' in reachable and not reachable.startswith('[') else reachable}:{port}"


def claim_port(host: str, port: int) -> int:
    """Return `port` if it is free on `host`, or a free one for 0.

    Raises:
        ConfigError: something listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"Port {port} on {host} can not be used: {error.strerror or error}.",
                "Choose another --port (0 takes a free one), or stop what listens there.",
            ) from error
        return int(probe.getsockname()[1])
