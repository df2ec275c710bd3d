"""A model folder or hub name served by a vLLM of our own: started, watched until it is healthy, stopped at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.backends import Answered, Decoding, Question
from evaluation.backends.endpoint import EndpointBackend
from evaluation.backends.local import check_folder, folder_fingerprint
from medix import processes
from medix.errors import ConfigError, EvaluationError
from medix.files import last_lines
from reward_fns.scorers.endpoints import EndpointOptions

SERVED_NAME = "evaluated"
START_LIMIT_S = 1800.0
"""A large model on slow disks takes many minutes; a server that died is noticed at once."""
POLL_S = 0.25


class VllmBackend:
    """Started at the first question, so that a run with nothing left to ask starts nothing.

    Raises:
        ConfigError: vLLM is not installed, or the folder is missing or holds no model.
    """

    def __init__(self, options: EndpointOptions, model: str, decoding: Decoding, deadline_s: float, log: Path) -> None:
        self.log = log
        self.model, self._options, self._decoding, self._deadline_s = model, options, decoding, deadline_s
        self._server: ServerProcess | None = None
        self._client: EndpointBackend | None = None
        if find_spec("vllm") is None:
            raise ConfigError("vLLM is not installed.", "Run `make setup`, or use --backend transformers.")
        # A hub name is OWNER/NAME; anything else that is not there is a folder that was misspelt.
        if Path(model).is_dir() or model.count("/") != 1 or model.startswith((".", "/", "~")):
            check_folder(Path(model))

    def identity(self) -> dict[str, Any]:
        folder = Path(self.model)
        if folder.is_dir():
            return {"backend": "vllm", "model": folder.resolve().name, "fingerprint": folder_fingerprint(folder)}
        return {"backend": "vllm", "model": self.model}

    async def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        source = iter(questions)
        first = next(source, None)
        if first is None:
            return
        async for answered in self._start().answer(chain([first], source)):
            yield answered

    def _start(self) -> EndpointBackend:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        command = processes.python_command(
            "vllm.entrypoints.openai.api_server", "--model", self.model, "--served-model-name", SERVED_NAME,
            "--host", "127.0.0.1", "--port", str(port), *os.environ.get("MEDIX_VLLM_ARGS", "").split(),
        )  # fmt: skip
        self._server = ServerProcess(command, port, self.log)
        self._server.wait_until_healthy()
        options = replace(self._options, urls=(self._server.url,))
        self._client = EndpointBackend(options, SERVED_NAME, self._decoding, self._deadline_s)
        return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        if self._server is not None:
            self._server.stop()


class ServerProcess:
    """A child with a health address, in its own process group so that its workers end with it.

    Args:
        port: where it will listen on 127.0.0.1; the command has to name it too.
        log: written anew with all that the server prints.
    """

    def __init__(self, command: Sequence[str], port: int, log: Path, limit_s: float = START_LIMIT_S) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self._limit_s, self._end, self._mark = limit_s, time.monotonic() + limit_s, uuid.uuid4().hex
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        environment = processes.child_environment(**processes.vllm_environment(), **{processes.RUN_MARK: self._mark})
        with log.open("xb") as output:
            self._child = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True, env=environment, preexec_fn=processes.die_with_parent,
            )  # fmt: skip

    def wait_until_healthy(self) -> None:
        """Wait until `/health` answers.

        Raises:
            EvaluationError: the child ended, or was not healthy within the limit; it is stopped then.
        """
        while not self._healthy():
            code = self._child.poll()
            if code is not None or time.monotonic() > self._end:
                self.stop()
                why = f"was not healthy after {self._limit_s:.0f} s" if code is None else f"ended with exit code {code}"
                raise EvaluationError(f"The server {why}. Its log says:\n{self._last_words()}\n", f"Read {self.log}.")
            time.sleep(POLL_S)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                # Another server on this port may have answered: ours is dead then, or about to be.
                return bool(response.status == 200) and self._child.poll() is None
        except (urllib.error.URLError, OSError):
            return False

    def _last_words(self) -> str:
        """Return the last lines of the log that name an error; without any, its last lines."""
        lines = last_lines(self.log, 400).splitlines()
        errors = [line for line in lines if "Error" in line and "Traceback" not in line]
        return "\n".join((errors or lines)[-15:])

    def stop(self, grace_s: float = 20.0) -> None:
        """End the server and all that it started, asked first and killed after the grace."""
        processes.end_processes(self._mark, grace_s)
        self._child.wait(5.0)
