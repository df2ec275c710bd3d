"""Tell whether two texts are the same answer: the one equality of reward, rule-judge, evaluation and data.

Equality pays without a judge, so it may only pass over what never changes a meaning: case where case is typography,
white space, hyphens between words, and compatibility forms such as full-width letters. Every other sign, digit, letter
or word is a difference, and a difference is for a judge to weigh.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

_HYPHENS: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
"""Hyphens, the dash of a range and the minus sign: several code points for one sign."""
_FORMS: Final = ("<wide>", "<narrow>", "<noBreak>")
"""Unicode's compatibility forms that differ in width only. Superscripts are not among them: 10² is not 102."""
_LIGATURES: Final = frozenset("\ufb00\ufb01\ufb02\ufb03\ufb04\ufb05\ufb06\u00b5")
_UNSEEN: Final = frozenset("\u115f\u1160\u3164\uffa0")
"""Letters to Unicode, with nothing to see."""
_HYPHEN: Final = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_MARKER: Final = re.compile(r"(?<![^\W_])[+-]|[+-](?![^\W_])")
"""A plus or minus that does not stand between two letters or digits: `ER+ PR-`, `-5`, `K +`."""
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_UNITS: Final = frozenset(
    ("mg", "mm", "mv", "ma", "mw", "ms", "mj", "mpa", "mhz", "mbq", "mci", "mgy", "msv", "mmol", "mosm", "mev", "meq")
) | {"pa", "pg", "pm", "ps", "pmol"}
"""Symbols that mean something else in another case: milli and mega, pico and peta, pascal and posteroanterior."""
_ONE_LETTER_WORDS: Final = frozenset("ax")
"""`A fracture`, `X-ray`. Of the other letters the case counts: anti-K is not anti-k, G is not g."""


def same_answer(left: str, right: str) -> bool:
    """Return whether both texts state the same answer in the same words.

    Args:
        left, right: raw texts, in any order. A text without a letter or digit equals nothing, not even itself.

    Example:
        >>> same_answer("Non-small cell lung cancer", "non small  cell lung cancer"), same_answer("X-ray", "x-ray")
        (True, True)
        >>> same_answer("5 mV", "5 MV"), same_answer("ER+ PR-", "ER- PR+"), same_answer("pneumonia?", "pneumonia")
        (False, False, False)
        >>> same_answer(".", ".")
        False
    """
    key = answer_key(left)
    return key is not None and key == answer_key(right)


@lru_cache(maxsize=8192)
def answer_key(text: str) -> str | None:
    """Return the form in which equal answers are equal texts, for sets and hashes.

    Returns:
        None if the text has no letter or digit: such a text is no answer and equals nothing.
    """
    folded = unicodedata.normalize("NFC", "".join(map(_plain_form, text)).translate(_HYPHENS))
    if not any(char.isalnum() and char not in _UNSEEN for char in folded):
        return None
    if not _MARKER.search(folded):
        folded = _HYPHEN.sub(lambda match: _between_words(folded, match.start()), folded)
    words = folded.split()
    befores = ["", *words]
    return " ".join(_fold_case(word, before) for word, before in zip(words, befores, strict=False))


def _plain_form(char: str) -> str:
    if char.isascii():
        return char
    kind, *codes = unicodedata.decomposition(char).split() or [""]
    if kind not in _FORMS and char not in _LIGATURES:
        return char
    return "".join(chr(int(code, 16)) for code in codes)


def _between_words(text: str, place: int) -> str:
    """Return what the hyphen at `place` becomes: a blank, or itself after a marker in capitals (`ER-PR`)."""
    before = _LETTERS.findall(text[:place])[-1]
    return "-" if len(before) > 1 and before.isupper() else " "


def _fold_case(word: str, before: str) -> str:
    """Return `word` in lower case, or as written where its case may mean something: symbols, units, after a number."""
    if any(char.isdigit() for char in word + before):
        return word
    return word if any(map(_case_counts, _LETTERS.findall(word))) else word.lower()


def _case_counts(letters: str) -> bool:
    if len(letters) == 1:
        return letters.lower() not in _ONE_LETTER_WORDS
    is_mixed = letters[1:] != letters[1:].lower() and letters != letters.upper()
    return is_mixed or letters.lower() in _UNITS
