"""A model folder or hub name served by a vLLM of our own: started, watched until it is healthy, stopped at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.backends import Answered, Decoding, Question
from evaluation.backends.endpoint import EndpointBackend
from evaluation.backends.local import folder_fingerprint
from evaluation.backends.server_process import ServerProcess, claim_port
from medix.errors import EvaluationError
from reward_fns.scorers.endpoints import EndpointOptions

SERVED_NAME = "evaluated"


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
        port = claim_port("127.0.0.1", 0)
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model,
            "--served-model-name", SERVED_NAME, "--host", "127.0.0.1", "--port", str(port),
            *os.environ.get("MEDIX_VLLM_ARGS", "").split(),
        ]  # fmt: skip
        self._server = ServerProcess(command, port, self.log, error=EvaluationError)
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
