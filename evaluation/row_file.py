"""Append-only JSON lines that survive kill -9, a full disk and two writers: the store of every stage."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medix.errors import EvaluationError


class RowFile:
    """Rows with a `key`; a later row replaces an earlier one of the same key. Nothing is ever rewritten."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def offsets(self) -> dict[str, int]:
        """Where the latest row of each key begins, in order of the first appearance. Damaged lines are passed over."""
        found: dict[str, int] = {}
        for offset, row in self._scan():
            found[str(row["key"])] = offset
        return found

    def latest(self) -> Iterator[dict[str, Any]]:
        """The latest row of each key, one in memory at a time."""
        offsets = self.offsets()
        if offsets:
            with self.path.open("rb") as file:
                for offset in offsets.values():
                    file.seek(offset)
                    yield json.loads(file.readline())

    def _scan(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if not self.path.exists():
            return
        offset = 0
        with self.path.open("rb") as file:
            for line in file:
                row = _parse(line)
                if row is not None:
                    yield offset, row
                offset += len(line)


def _parse(line: bytes) -> dict[str, Any] | None:
    """A whole row, or None for the half line that a killed writer leaves."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "key" in row else None


class RowWriter:
    """The one writer of a row file, as a context manager.

    Raises:
        EvaluationError: another process writes the file, or the disk is full; what was written before stays whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> RowWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise EvaluationError(
                f"to be the only writer of {self.path}", "another process at work", "wait for it, or use another --out"
            ) from None
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            self._write(b"\n")
        return self

    def append(self, row: Mapping[str, Any]) -> None:
        self._write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def _write(self, data: bytes) -> None:
        size = os.fstat(self._fd).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, size)  # no half row stays behind
            raise EvaluationError(
                f"room for the next row of {self.path}",
                error.strerror or str(error),
                "free some, run again: it resumes",
            ) from error

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
