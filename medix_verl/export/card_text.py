"""Text from run files, made safe for a model card: it can not end a table, open a tag, a link or the front matter."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

CELL_CHARS: Final = 300
BLOCK_CHARS: Final = 20_000
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()#+!|~$^])")
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def plain(value: object) -> str:
    """One line of text without markup. Controls and characters that reorder or hide text become spaces."""
    text = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs") else char for char in str(value))
    text = " ".join(text.split())[:CELL_CHARS]
    return _MARKUP.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; the headings are ours, the cells may be anybody's."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def block(text: str) -> str:
    """Text as it stands, in a fence longer than any in it."""
    text = text[:BLOCK_CHARS]
    fence = "~" * max([3, *(len(run) + 1 for run in re.findall("~+", text))])
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def hub_name(value: Any) -> str | None:
    """The value where it is a name on the hub, such as `Qwen/Qwen2.5-VL-7B-Instruct`; for the front matter."""
    return value if isinstance(value, str) and _HUB_NAME.fullmatch(value) and ".." not in value else None


def shown_name(name: str) -> str:
    """A model's name for others to read: of a local folder the last part, where it lay is nobody's business."""
    return name if hub_name(name) else Path(name).name


def number(value: Any, pattern: str = "{:.4g}") -> str | None:
    """A number as text, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return pattern.format(value)
