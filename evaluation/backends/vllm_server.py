"""A model folder or hub name served by a vLLM of our own: started, watched until it is healthy, stopped at the end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.backends import Answered, Decoding, Question
from evaluation.backends.endpoint import EndpointBackend
from evaluation.backends.local import check_folder, folder_fingerprint
from evaluation.backends.server_process import ServerProcess, claim_port
from medix.errors import ConfigError, EvaluationError
from medix.processes import python_command, vllm_environment
from reward_fns.scorers.endpoints import EndpointOptions

SERVED_NAME = "evaluated"


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

    async def check(self) -> None:
        """Do nothing: what can be known without starting a server was looked at."""

    async def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        source = iter(questions)
        first = next(source, None)
        if first is None:
            return
        async for answered in self._start().answer(chain([first], source)):
            yield answered

    def _start(self) -> EndpointBackend:
        port = claim_port("127.0.0.1", 0)
        command = python_command(
            "vllm.entrypoints.openai.api_server", "--model", self.model, "--served-model-name", SERVED_NAME,
            "--host", "127.0.0.1", "--port", str(port), *os.environ.get("MEDIX_VLLM_ARGS", "").split(),
        )  # fmt: skip
        self._server = ServerProcess(command, port, self.log, environment=vllm_environment(), error=EvaluationError)
        self._server.wait_until_healthy()
        options = replace(self._options, urls=(self._server.url,))
        self._client = EndpointBackend(options, SERVED_NAME, self._decoding, self._deadline_s)
        return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        if self._server is not None:
            self._server.stop()
