"""JSON lines: the one module that reads, follows and appends them.

A file may be half written, damaged by a killed writer, or still growing. A reader counts what it passes over, so that
its caller can say so; a writer never leaves half a line before the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medix.errors import MedixError
from medix.files import take_lock


class JsonLines:
    """Read the objects of a JSONL file in order.

    After iteration `unreadable` counts the lines that hold no JSON object, `first_unreadable` is the number of the
    first, and `half_written` tells whether the last line lacks its line end and can not be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> _ = path.write_text('{"a": 1}\\nbroken\\n{"a": 2}\\n')
        >>> rows = JsonLines(path)
        >>> [(number, row["a"]) for number, row in rows], rows.unreadable
        ([(1, 1), (3, 2)], 1)
    """

    def __init__(self, path: Path) -> None:
        self.path, self.unreadable, self.half_written = path, 0, False
        self.first_unreadable: int | None = None

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (line number from 1, object). A missing file has no lines."""
        for number, _, row in self.with_offsets():
            yield number, row

    def with_offsets(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield (line number from 1, offset of the line in bytes, object)."""
        self.unreadable, self.half_written, self.first_unreadable = 0, False, None
        if not self.path.is_file():
            return
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = parse_object(line)
                    if row is not None:
                        yield number, offset, row
                    elif line.endswith(b"\n"):
                        self.unreadable += 1
                        self.first_unreadable = self.first_unreadable or number
                    else:
                        self.half_written = True
                offset += len(line)

    def note(self) -> str | None:
        """Return a sentence on what was passed over, or None if every line was read."""
        found = []
        if self.unreadable:
            found.append(f"{self.unreadable} unreadable line{'s' if self.unreadable > 1 else ''} passed over")
        if self.half_written:
            found.append("the last line is half written")
        return f"{self.path.name}: {', '.join(found)}" if found else None


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line, or None if the line holds anything else."""
    try:
        row = json.loads(line.decode("utf-8-sig", errors="replace"))  # some editors start a file with a mark
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


class GrowingFile:
    """Follow a JSONL file that another process is writing; each whole line is given once.

    Args:
        path: need not exist yet.
        from_end: skip what the file holds now.
    """

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the objects added since the last call, oldest first. Damaged lines are skipped; a half line waits."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self._offset += end
        return [row for line in content[:end].splitlines() if (row := parse_object(line)) is not None]


class JsonlWriter:
    """Append objects to a JSONL file, one whole line at a time.

    A half line that a killed writer left is ended first, so that only that one line is lost. If a write fails (a full
    disk), the file is cut back to its last whole line.

    Args:
        path: created with its folder if it is missing.
        exclusive: refuse to open the file while another process writes it.

    Raises:
        ConfigError: another process writes the file.
        MedixError: the disk is full or fails; the lines written before stay whole.
    """

    def __init__(self, path: Path, exclusive: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(Path(f"{path}.lock"), f"Another process is writing {path}.") if exclusive else None
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            self._write(b"\n")

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one object as one line. Half a surrogate pair, as a model may emit, is written as its JSON escape."""
        text = json.dumps(row, ensure_ascii=False, default=str)
        self._write(text.encode("utf-8", "backslashreplace") + b"\n")

    def _write(self, data: bytes) -> None:
        size = os.fstat(self._fd).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, size)
            raise MedixError(
                f"{self.path} can not be written: {error.strerror or error}.",
                "Free some space and run the same command again; it goes on where it stopped.",
            ) from error

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._fd)
        if self._lock is not None:
            self._lock.release()
