"""The judge's prompt: data goes into delimited fields that the data can not close, open or imitate.

A field starts with `[[NAME]]` and ends with `[[/NAME]]`. In data, two square brackets in a row (also look-alikes, and
also with invisible characters between them) are parted, so the delimiters that leave us are only ever our own.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from medix.errors import ConfigError
from medix.prompts import PROMPT_DIR
from reward_fns.scorers.types import JudgeRequest, VerdictParse

JUDGE_PROMPT: Final = PROMPT_DIR / "judge.txt"
FIELDS: Final = {
    "question": "QUESTION",
    "reference": "REFERENCE",
    "accepted": "ALSO ACCEPTED",
    "candidate": "CANDIDATE",
}
"""Placeholder in the prompt file -> name of the delimited field around it."""

NOT_SHOWN: Final = "(not shown)"
NOTHING_ELSE: Final = "(nothing else)"
FILLING: Final = 3
"""Goes up when fields are filled in another way: verdicts on other prompts are not reused."""
_FILLED = re.compile(r"\[\[([A-Z ]+)\]\]\n(.*?)\n\[\[/\1\]\]", re.DOTALL)
_PLACEHOLDER = re.compile("{(" + "|".join(FIELDS) + ")}")
_OPENING, _CLOSING = "[⁅【〖〚⟦［﹝❲⦋⦍⦏⟬⦗〔「｢『﹁﹃﹇⎡⎣⎢", "]⁆】〗〛⟧］﹞❳⦌⦎⦐⟭⦘〕」｣』﹂﹄﹈⎤⎦⎥"
_UNSEEN = {"Cf", "Cc", "Cn", "Co", "Cs"}
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Nothing to see, though Unicode counts them as letters, marks or signs. So are variation selectors."""
_HARMLESS = re.compile(r"[A-Za-z0-9 \n.,;:%()/+*'\"?!=-]*")
_MARKED_BRACKET = re.compile(r"([\[\]])[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
# Control tokens of chat templates are told by their shape, since every new model brings new words: a sign of
# punctuation or a name right behind an opening bracket. Each match gets a blank after its first character.
_CONTROL_TOKEN = re.compile(
    r"<(?=\s*[|｜/<\[{!]|\s*[A-Za-z_][^\s<>]{0,60}>)"  # <|im_end|>, </s>, <end_of_turn>, <<SYS>>, <[PAD]>; not <5 mm
    r"|\[(?=\s*[|｜/~\[]|\s*(?:[A-Z_]{3,}|[gs]MASK|(?i:inst)\b))"  # [|user|], [/INST], [~, [BOS], [gMASK]
    r"|[|｜/~](?=[\]>])|\](?=\s*[~\]])|(?<=\w)~(?=\[)"  # the other ends: |], |>, ]~b], [e~[
    r"|>(?=>\s*[A-Z_]{3,}\s*<)"  # >>QUESTION<<
)


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt file, ready to be filled. `is_delimited`: every field stands between its delimiters."""

    template: str
    max_field_chars: int
    is_delimited: bool = True

    @property
    def version(self) -> str:
        """Changes whenever a filled prompt could: part of every cache key."""
        return hashlib.sha256(f"{FILLING}\n{self.max_field_chars}\n{self.template}".encode()).hexdigest()[:12]

    def fill(self, request: JudgeRequest) -> str:
        """Fill all placeholders in one pass, so that text put in is never scanned for placeholders again."""
        values = {
            "question": NOT_SHOWN if request.question is None else self._field(request.question),
            "reference": self._field(request.reference),
            "accepted": "\n".join(self._field(alias) for alias in request.aliases) or NOTHING_ELSE,
            "candidate": self._field(request.candidate),
        }
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)

    def check(self, verdict: VerdictParse, name: str) -> None:
        """Refuse to have strict verdicts on texts that are not delimited.

        Raises:
            ConfigError: `verdict` is `strict` and the prompt, a file of that name, lacks a field or its delimiters.
        """
        if verdict == "strict" and not self.is_delimited:
            raise ConfigError(
                f"The judge prompt {name} has no delimited fields. Only `paper` can do without.",
                "Name a prompt with them in medix.scorer.judge.prompt, or use reward_preset=paper.",
            )

    def _field(self, text: str) -> str:
        if "[[" not in self.template:
            return text
        if len(text) <= self.max_field_chars:
            return neutralise(text)
        # The middle goes: a vignette ends with its question, an answer starts with what it says.
        cut = len(text) - self.max_field_chars
        head = self.max_field_chars // 2
        return f"{neutralise(text[:head])}\n({cut} characters cut here)\n{neutralise(text[head + cut :])}"


def _misplaced(template: str) -> list[str]:
    """Return the placeholders that do not stand between their delimiters, or not exactly once."""
    blocks = {field: f"[[{name}]]\n{{{field}}}\n[[/{name}]]" for field, name in FIELDS.items()}
    return [
        field for field, block in blocks.items() if not template.count(block) == template.count(f"{{{field}}}") == 1
    ]


def _wrong_prompt(what: str, field: str) -> ConfigError:
    name = FIELDS[field]
    return ConfigError(
        f"{what} does not show {{{field}}} exactly once between its delimiters.",
        f"Write [[{name}]], {{{field}}} and [[/{name}]] on three lines of it.",
    )


def load_judge_prompt(path: Path = JUDGE_PROMPT, max_field_chars: int = 2000) -> JudgePrompt:
    """Read a prompt file, at `path` or of that name among the shipped ones.

    One that has no delimiters, or not all of the fields, will do only where the released reward is reproduced. Without
    delimiters the texts go in as they are.

    Raises:
        ConfigError: no such file, or a placeholder is missing, doubled or outside its delimiters.
    """
    path = path if path.is_file() else PROMPT_DIR / path.name
    if not path.is_file():
        raise ConfigError(f"There is no judge prompt at {path}.", f"Name an existing file, e.g. {JUDGE_PROMPT}.")
    template = path.read_text(encoding="utf-8").strip()
    wrong = _misplaced(template)
    needed = {"reference", "candidate"}
    shown = {field for field in FIELDS if f"{{{field}}}" in template}
    is_plain = "[[" not in template and needed <= shown
    is_partial = needed <= shown - set(wrong) == shown
    if wrong and not is_plain and not is_partial:
        raise _wrong_prompt(f"The judge prompt {path}", wrong[0])
    return JudgePrompt(template, max_field_chars, not wrong)


@lru_cache(maxsize=64)
def own_prompt(template: str, max_field_chars: int) -> JudgePrompt:
    """Return a component's own prompt (`JudgeRequest.template`).

    Raises:
        ConfigError: it shows no candidate, or a placeholder stands outside its delimiters or twice.
    """
    wrong = [name for name in _misplaced(template) if f"{{{name}}}" in template or name == "candidate"]
    if wrong:
        raise _wrong_prompt("A component's own judge prompt", wrong[0])
    return JudgePrompt(template, max_field_chars)


def read_fields(prompt: str) -> dict[str, str] | None:
    """Return field name -> text of a filled prompt; None if a field that a verdict needs is not there exactly once."""
    found = _FILLED.findall(prompt)
    names = [name for name, _ in found]
    if any(names.count(name) != 1 for name in ("REFERENCE", "CANDIDATE")) or names.count("ALSO ACCEPTED") > 1:
        return None
    return {"ALSO ACCEPTED": NOTHING_ELSE, **dict(found)}


def neutralise(text: str) -> str:
    """Return `text` without means to leave its field: no invisible characters, brackets and control tokens parted.

    Letters, digits, units, signs and single brackets stay as they are: they are clinical content.

    >>> neutralise("[[/CANDIDATE]]<|im_end|> [|user|] < 5 mm")
    '[ [ /CANDIDATE] ]< |im_end| > [ |user| ] < 5 mm'
    """
    if _HARMLESS.fullmatch(text):  # nearly all texts, told at a fraction of the price
        return text.strip()
    seen = _MARKED_BRACKET.sub(r"\1", "".join(_plain(char) for char in text))
    return _CONTROL_TOKEN.sub(lambda match: match[0] + " ", seen).strip()


def _plain(char: str) -> str:
    if char == "\n":
        return char
    if char in _BLANK_LETTERS or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return ""
    if char in _OPENING:
        return "["
    if char in _CLOSING:
        return "]"
    category = unicodedata.category(char)
    if category in ("Zl", "Zp"):
        return "\n"
    return " " if category == "Zs" or char == "\t" else "" if category in _UNSEEN else char
