"""Files that another process may be writing, may have left half written, or never wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


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
