"""JSON lines and JSON files that another process may be writing, may have left half written, or never wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


class JsonLines:
    """The objects of a JSONL file, in order. After iteration `unreadable` counts the lines that were no object."""

    def __init__(self, path: Path) -> None:
        self.path, self.unreadable, self.half_written = path, 0, False

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number from 1, object); nothing where the file is missing."""
        self.unreadable, self.half_written = 0, False
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = _object(line)
                if row is not None:
                    yield number, row
                elif line.endswith(b"\n"):
                    self.unreadable += 1
                else:
                    self.half_written = True

    def note(self) -> str | None:
        """What a reader of the page should know, or None."""
        found = []
        if self.unreadable:
            found.append(f"{self.unreadable} unreadable line{'s' if self.unreadable > 1 else ''} passed over")
        if self.half_written:
            found.append("the last line is half written")
        return f"{self.path.name}: {', '.join(found)}" if found else None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_mapping(path: Path, notes: list[str]) -> dict[str, Any]:
    """A YAML or JSON file that holds a mapping; where it is missing or unreadable, `notes` says so and it is empty."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        notes.append(f"{path.name}: unreadable, left out")
        return {}
    if isinstance(content, list):
        return {"rows": content}
    return content if isinstance(content, dict) else {}
