"""Follows a file of JSON lines that another process is still writing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class GrowingFile:
    """Gives each whole line once; a half-written last line waits for the next call.

    Args:
        path: need not exist yet.
        from_end: leave out what stands in it now.
    """

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def new_rows(self) -> list[dict[str, Any]]:
        """The objects added since the last call, oldest first. Lines that a killed writer spoilt are passed over."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self._offset += end
        return list(_objects(content[:end].splitlines()))


def _objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row
