"""Which option a free answer to a choice question names: certain, or not decided here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from evaluation.item import LETTERS

_ALONE = re.compile(r"[\s\"'`*(\[]*([A-Za-z])[\s\"'`*)\].:]*")
_LEADING = re.compile(r"\s*[\"'`*(\[]*([A-Z])[\"'`*)\]]*\s*(?:[.:)\]]|-\s|\n)\s*(\S.*)", re.DOTALL)
_STATED = re.compile(
    r"\b(?i:answer|option|choice)\b(?:\s+(?i:is|would be|should be|must be))?\s*[:=]?\s*"
    # A capital, and then an end: "the answer is A fracture" and "the answer is I think" name no option.
    r"[\"'`*(\[]*([A-Z])[\"'`*)\]]*(?=\s*(?:[.,;:!?)]|$|-|\n|(?i:because|since|as)\b))",
)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*\(?([A-Za-z])\)?\s*\}")
_NEGATION = re.compile(
    r"\b(?:not|isn't|never|neither|nor|except|rather than|instead of|unlikely|incorrect|wrong)\b", re.IGNORECASE
)


def match_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The one option that `answer` names beyond doubt, or None: then a judge has to read it.

    Certain are: a letter alone; a letter with its own option's text; one stated letter ("the answer is B") with no
    other; the text of exactly one option. A denial or a second option makes it uncertain.
    """
    letters = LETTERS[: len(choices)]
    alone = _ALONE.fullmatch(answer)
    if alone:
        letter = alone[1].upper()
        return letter if letter in letters else None
    texts = [plain(choice) for choice in choices]
    whole = plain(answer)
    if texts.count(whole) == 1:
        return letters[texts.index(whole)]
    leading = _LEADING.fullmatch(answer)
    if leading and leading[1] in letters:
        # "B. pleural effusion", whatever explanation follows; a letter before anything else is left to a judge.
        own = texts[letters.index(leading[1])]
        return leading[1] if own and f"{plain(leading[2])} ".startswith(f"{own} ") else None
    return _one_stated(answer, whole, letters, texts)


def _one_stated(answer: str, whole: str, letters: str, texts: Sequence[str]) -> str | None:
    if _NEGATION.search(answer):
        return None
    stated: set[str] = {letter.upper() for letter in (*_BOXED.findall(answer), *_STATED.findall(answer))}
    named = {letter for letter, text in zip(letters, texts, strict=True) if text and f" {text} " in f" {whole} "}
    # An option whose text lies within another named option is not named by itself ("effusion", "pleural effusion").
    named = {a for a in named if not any(a != b and _within(a, b, letters, texts) for b in named)}
    if len(stated) == 1 and named <= stated and stated <= set(letters):
        return stated.pop()
    # A long answer may mention an option in passing: only one that says little else than the option counts.
    if not stated and len(named) == 1:
        letter = named.pop()
        return letter if len(whole.split()) <= len(texts[letters.index(letter)].split()) + 4 else None
    return None


def _within(a: str, b: str, letters: str, texts: Sequence[str]) -> bool:
    return f" {texts[letters.index(a)]} " in f" {texts[letters.index(b)]} "


def plain(text: str) -> str:
    """Lower case, white space and surrounding punctuation normalised; signs and units inside stay."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(word for word in (part.strip(".,;:!?\"'`*()[]") for part in folded.split()) if word)
