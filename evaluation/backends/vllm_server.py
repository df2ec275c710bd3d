"""A model folder or hub name served by a vLLM of our own: started, watched until it is healthy, stopped at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.backends import Answered, Decoding, Question
from evaluation.backends.endpoint import EndpointBackend
from evaluation.backends.local import folder_fingerprint
from medix.errors import EvaluationError
from medix.scorer.endpoints import EndpointOptions

START_LIMIT_S = 1800.0
"""A large model on slow disks takes many minutes; a server that died is noticed at once."""
SERVED_NAME = "evaluated"


class ServerProcess:
    """A child with a health address, in its own process group so that its workers end with it."""

    def __init__(self, command: Sequence[str], port: int, log: Path, limit_s: float = START_LIMIT_S) -> None:
        self.url, self.log, self._limit_s = f"http://127.0.0.1:{port}", log, limit_s
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._child = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def wait_until_healthy(self) -> None:
        """Poll `/health`.

        Raises:
            EvaluationError: the child ended, or was not healthy within the limit; it is stopped then.
        """
        end = time.monotonic() + self._limit_s
        while not self._healthy():
            code = self._child.poll()
            if code is None and time.monotonic() < end:
                time.sleep(0.25)
                continue
            found = f"exit code {code}" if code is not None else f"nothing healthy after {self._limit_s:.0f} s"
            self.stop()
            raise EvaluationError(
                "the model's server to come up", f"{found}; its last words: {self._last_words()!r}", f"read {self.log}"
            )

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                return bool(response.status == 200) and self._child.poll() is None
        except (urllib.error.URLError, OSError):
            return False

    def _last_words(self) -> str:
        lines = self.log.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else ""

    def stop(self, grace_s: float = 20.0) -> None:
        """End the whole group: asked first, killed after the grace."""
        for sign, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self._child.pid, sign)
            except ProcessLookupError:
                break
            try:
                self._child.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        self._child.poll()


class VllmBackend:
    """Started at the first question, so that a run with nothing left to ask starts nothing."""

    def __init__(self, options: EndpointOptions, model: str, decoding: Decoding, deadline_s: float, log: Path) -> None:
        self.log = log
        self.model, self._options, self._decoding, self._deadline_s = model, options, decoding, deadline_s
        self._server: ServerProcess | None = None
        self._client: EndpointBackend | None = None

    def identity(self) -> dict[str, Any]:
        folder = Path(self.model)
        if folder.is_dir():
            return {"backend": "vllm", "model": folder.name, "fingerprint": folder_fingerprint(folder)}
        return {"backend": "vllm", "model": self.model}

    async def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        source = iter(questions)
        first = next(source, None)
        if first is None:
            return
        client = self._start()
        async for answered in client.answer(_chain(first, source)):
            yield answered

    def _start(self) -> EndpointBackend:
        port = _free_port()
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model,
            "--served-model-name", SERVED_NAME, "--host", "127.0.0.1", "--port", str(port),
            *os.environ.get("MEDIX_VLLM_ARGS", "").split(),
        ]  # fmt: skip
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


def _chain(first: Question, rest: Iterable[Question]) -> Iterable[Question]:
    yield first
    yield from rest


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
