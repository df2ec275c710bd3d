"""The judge's prompt: data goes into delimited fields that the data can not close, open or imitate.

A field starts with `[[NAME]]` and ends with `[[/NAME]]`. In data, two square brackets in a row (also look-alikes, and
also with invisible characters between them) are parted, so the delimiters that leave us are only ever our own.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medix.errors import ConfigError
from medix.prompts import PROMPT_DIR
from medix.scorer.types import JudgeRequest

JUDGE_PROMPT: Final = PROMPT_DIR / "judge.txt"
FIELDS: Final = {
    "question": "QUESTION",
    "reference": "REFERENCE",
    "accepted": "ALSO ACCEPTED",
    "candidate": "CANDIDATE",
}
"""Placeholder in the prompt file -> name of the delimited field around it."""

NOT_SHOWN: Final = "(not shown)"
_PLACEHOLDER = re.compile("{(" + "|".join(FIELDS) + ")}")
_OPENING, _CLOSING = "[⁅【〖〚⟦［﹝❲⦋⦍⦏⟬", "]⁆】〗〛⟧］﹞❳⦌⦎⦐⟭"
_UNSEEN = {"Cf", "Cc", "Cn", "Co", "Cs"}
_CONTROL_TOKEN = re.compile(r"<\s*(?=[|｜/])|\[(?=\s*/?\s*INST\b)", re.IGNORECASE)
_HARMLESS = re.compile(r"[A-Za-z0-9 \n.,;:%()/+*'\"?!=-]*")
_RUN_OF_OPENING, _RUN_OF_CLOSING = re.compile(r"\[\s*(?=\[)"), re.compile(r"\]\s*(?=\])")


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt file, ready to be filled."""

    template: str
    max_field_chars: int

    @property
    def version(self) -> str:
        """Changes whenever a filled prompt could: part of every cache key."""
        return hashlib.sha256(f"{self.max_field_chars}\n{self.template}".encode()).hexdigest()[:12]

    def fill(self, request: JudgeRequest) -> str:
        """All placeholders in one pass, so that text put in is never scanned for placeholders again."""
        values = {
            "question": NOT_SHOWN if request.question is None else self._field(request.question),
            "reference": self._field(request.gold),
            "accepted": "\n".join(self._field(alias) for alias in request.aliases) or "(nothing else)",
            "candidate": self._field(request.answer),
        }
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)

    def _field(self, text: str) -> str:
        if len(text) <= self.max_field_chars:
            return neutralise(text)
        cut = len(text) - self.max_field_chars
        return f"{neutralise(text[: self.max_field_chars])}\n(cut here: {cut} more characters)"


def load_judge_prompt(path: Path = JUDGE_PROMPT, max_field_chars: int = 2000) -> JudgePrompt:
    """Read a prompt file.

    Raises:
        ConfigError: no such file, or a placeholder is missing, doubled or outside its delimiters.
    """
    if not path.is_file():
        raise ConfigError("a judge prompt file", f"none at {path}", f"name an existing file, e.g. {JUDGE_PROMPT}")
    template = path.read_text(encoding="utf-8").strip()
    for field, name in FIELDS.items():
        block = f"[[{name}]]\n{{{field}}}\n[[/{name}]]"
        if template.count(block) != 1 or template.count(f"{{{field}}}") != 1:
            raise ConfigError(f"{block!r} exactly once in {path}", "something else", f"edit {path}")
    return JudgePrompt(template, max_field_chars)


def neutralise(text: str) -> str:
    """`text` without means to leave its field: invisible characters go, bracket runs and control tokens are parted.

    Letters, digits, units, signs and single brackets stay as they are: they are clinical content.
    """
    if _HARMLESS.fullmatch(text):  # nearly all texts, told at a fraction of the price
        return text.strip()
    seen = "".join(_plain(char) for char in text)
    seen = _RUN_OF_CLOSING.sub("] ", _RUN_OF_OPENING.sub("[ ", seen))
    return _CONTROL_TOKEN.sub(lambda match: match[0].strip() + " ", seen).strip()


def _plain(char: str) -> str:
    if char == "\n":
        return char
    if char in _OPENING:
        return "["
    if char in _CLOSING:
        return "]"
    category = unicodedata.category(char)
    if category in ("Zl", "Zp"):
        return "\n"
    return " " if category == "Zs" or char == "\t" else "" if category in _UNSEEN else char
