"""Small JSON files of a model folder: read whole, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError

MAX_BYTES: Final = 64 << 20
"""The largest tokenizer.json of the supported families has 11 MB."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ExportError: the file is too large, is cut off, or holds no object.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ExportError(f"at most {MAX_BYTES >> 20} MB in {path.name}", f"{size >> 20} MB", f"look at {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ExportError(
            f"whole JSON in {path.name}",
            f"{size} bytes that are none ({error})",
            f"the folder {path.parent} was half written: take an earlier checkpoint, or save it again",
        ) from error
    if not isinstance(content, dict):
        raise ExportError(f"an object in {path.name}", type(content).__name__, f"look at {path}")
    return content


def read_json_if_there(folder: Path, name: str) -> dict[str, Any]:
    """The object in a file of a folder; empty where there is no such file."""
    path = folder / name
    return read_json(path) if path.is_file() else {}
