"""The processes in which models are loaded: JSON in, JSON out, and never left behind."""

from __future__ import annotations

import contextlib
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
from medix.processes import die_with_parent
from medix_verl.export.progress import say

LIMIT_S: Final = 3600.0
LAST_WORDS_CHARS: Final = 400
CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def available_bytes() -> int:
    """Memory that a new process could take, the limits of a container and of a job included."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for folder in _own_cgroups():
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            # No such file, or the limit "max": no limit.
            with contextlib.suppress(OSError, ValueError):
                room = int((folder / limit).read_text()) - int((folder / used).read_text())
                free = min(free, room + _file_cache_bytes(folder))
    return free


def _own_cgroups() -> list[Path]:
    """The control groups of this process and those around them; of version 1 the memory controller's."""
    found = {CGROUPS}
    with contextlib.suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                place = CGROUPS / controllers / path.lstrip("/")
                found |= {place, *(parent for parent in place.parents if parent.is_relative_to(CGROUPS))}
    return sorted(found)


def _file_cache_bytes(folder: Path) -> int:
    """Cache of files, which counts as used and is given up when memory is asked for."""
    try:
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    # Version 1 has the groups inside under names of their own.
    return sum(int(counts.get(f"total_{name}", counts.get(name, 0))) for name in ("inactive_file", "active_file"))


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
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, preexec_fn=die_with_parent
            )
        self._ended = False

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        self._folder.cleanup()

    def _end(self) -> None:
        """End the child and what it started, once: afterwards its number may be another's."""
        if not self._ended:
            self._ended = True
            # Its ranks may outlive it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def answer(self) -> dict[str, Any]:
        """Wait for what the child found: its findings, or `{"skipped": reason}` where the machine did not let it end.

        Raises:
            ExportError: the child refused the folder or died of an error.
        """
        say(f"proving: {self.module.rpartition('.')[2].replace('_', ' ')}")
        try:
            code = self._process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            return {"skipped": f"no answer within {self._limit_s:.0f} s"}
        finally:
            self._end()
        if code == -signal.SIGKILL or (code and "terminated with signal SIGKILL" in self._end_of_log()):
            return {"skipped": "its process was killed (-9), as the system does for want of memory"}
        if code != 0 or not self._answer.is_file():
            raise ExportError(
                f"{self.module} to load the model and answer",
                f"exit code {code}; its last words: {self._last_words()!r}",
                "the folder does not load on this machine",
            )
        result: dict[str, Any] = json.loads(self._answer.read_text())
        if "refused" in result:
            raise ExportError(*result["refused"])
        found_or_skipped: dict[str, Any] = result.get("found", result)
        return found_or_skipped

    def _end_of_log(self) -> str:
        return self._log.read_bytes()[-40_000:].decode(errors="replace")

    def _last_words(self) -> str:
        """The last line that names an error, else the last line."""
        lines = self._end_of_log().strip().splitlines()
        named = [line for line in lines if "Error" in line]
        return (named or lines or [""])[-1].strip()[-LAST_WORDS_CHARS:]
