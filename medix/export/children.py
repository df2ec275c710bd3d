"""The processes in which models are loaded: JSON in, JSON out, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from medix.errors import ExportError

LIMIT_S: Final = 3600.0
LAST_WORDS_CHARS: Final = 400


def available_bytes() -> int:
    """Memory that a new process could take, the limit of a container included."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue
    return free


class Child:
    """`python -m module REQUEST ANSWER`, started at once, in a session of its own that ends with the `with` block.

    Without `gpus` it sees none: they may be busy with training, and the proofs are computed in float32 on the CPU.
    """

    def __init__(self, module: str, request: dict[str, Any], *, gpus: bool = False, limit_s: float = LIMIT_S) -> None:
        self.module, self._limit_s = module, limit_s
        self._folder = tempfile.TemporaryDirectory(prefix="medix-export-")
        place = Path(self._folder.name)
        self._answer, self._log = place / "answer.json", place / "log.txt"
        (place / "request.json").write_text(json.dumps(request))
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        # A child loads local files only, so the hub's token is none of its business.
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            environment.pop(name, None)
        if not gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, "-m", module, str(place / "request.json"), str(self._answer)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._folder.cleanup()

    def answer(self) -> dict[str, Any]:
        """Wait for what the child found: `{"skipped": reason}`, or its findings.

        Raises:
            ExportError: the child refused the folder, died, or took too long.
        """
        try:
            code = self._process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0 or not self._answer.is_file():
            found = f"no answer within {self._limit_s:.0f} s" if code is None else f"exit code {code}"
            raise ExportError(
                f"{self.module} to load the model and answer",
                f"{found}; its last words: {self._last_words()!r}",
                "the folder does not load on this machine; an exit code of -9 is the system's want of memory",
            )
        result: dict[str, Any] = json.loads(self._answer.read_text())
        if "refused" in result:
            raise ExportError(*result["refused"])
        found_or_skipped: dict[str, Any] = result.get("found", result)
        return found_or_skipped

    def _last_words(self) -> str:
        """The last line that names an error, else the last line."""
        lines = self._log.read_bytes()[-40_000:].decode(errors="replace").strip().splitlines()
        named = [line for line in lines if "Error" in line]
        return (named or lines or [""])[-1].strip()[-LAST_WORDS_CHARS:]
