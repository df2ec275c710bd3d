"""Append-only JSONL of every scored response, with its breakdown, verdict, raw reply and latency."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO


class ScoredLog:
    """One writer per file; every line is whole before the next begins, so a reader may follow a live run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        end_half_written_line(path)
        # Half a surrogate pair, which a judge's JSON reply may hold, is written as the escape that JSON has for it.
        self._file: TextIO = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps({"time": round(time.time(), 3), **record}, ensure_ascii=False, default=str)
        self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


def end_half_written_line(path: Path) -> None:
    """A killed writer can leave half a line; end it, so that only that one line is unreadable."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
