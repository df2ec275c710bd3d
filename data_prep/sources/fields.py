"""Single fields of a table: whether one holds something, and what it says."""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from typing import Any, Final

_MISSING: Final = ("", "nan", "<na>")
"""What pandas writes for a missing value, as text."""


def present(value: Any) -> bool:
    """Return whether a field holds something; NaN and empty texts do not."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value.strip().lower() not in _MISSING if isinstance(value, str) else value is not None


def said(value: Any) -> str:
    """Return a text or number as text. A whole number is one without a point: a column of numbers with a gap is float.

    Example:
        >>> said(3.0), said(2.5), said(" left ")
        ('3', '2.5', 'left')
    """
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def number_of(value: Any) -> int | None:
    """Return the whole number that a field states, in digits too, or None."""
    stated = said(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    match = re.fullmatch(r"(-?[0-9]{1,6})(?:\.0)?", stated)
    return int(match[1]) if match else None


def literal(value: Any) -> Any:
    """Return the list or mapping that a text writes in JSON or as Python does, or the value itself."""
    if not isinstance(value, str) or not re.match(r"\s*[\[{]", value):
        return value
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            if isinstance(found := read(value), list | dict):
                return found
    return value
