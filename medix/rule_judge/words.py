"""From a clinical phrase to normalised tokens: spelling, plurals, number words, roman numerals."""

from __future__ import annotations

import re
from typing import Final

from medix.rule_judge.lexicon import lexicon

_TOKEN = re.compile(r"\d+[a-d]\b|\d+(?:[.,]\d+)*|[a-z]+\d*[a-z]?|[%<>≥≤=+]")
_TNM = re.compile(r"\b(t(?:\d[a-d]?|x))(n(?:\d[a-c]?|x))(m(?:\d|x))?\b")
_NUMBER_UNIT = re.compile(r"(\d)(?=[a-z%])")
_LABEL = re.compile(r"\b([ctlsnmp]\d{1,2}|(?:stage|grade|type|class)\s+\S+)", re.IGNORECASE)

_COUNTING: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
NUMBER_WORDS: Final = {
    **{word: str(number) for number, word in enumerate(_COUNTING)},
    **{word: str(number) for number, word in enumerate(_ORDINALS, start=1) if word != "second"},
    "twelve": "12",
}
ROMAN: Final = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "x": 10, "xi": 11, "xii": 12}  # fmt: skip # noqa: E501
_ROMAN_PART: Final = re.compile(r"^([ivx]+)([abc]?)$")
_NO_PLURAL: Final = frozenset(("series", "caries", "rabies", "scabies", "herpes", "diabetes", "ascites"))


def tokens(text: str) -> list[str]:
    """Normalised tokens in order: lower case, American spelling, singular, number words as digits."""
    text = text.replace("µ", "u").replace("μ", "u").replace("°", " degree ").lower()
    text = (
        _TNM.sub(lambda match: " ".join(part or "" for part in match.groups()), text)
        .replace("'s", " ")
        .replace("’s", " ")
    )
    text = re.sub(r"\bnon[- ]+(?=[a-z])", "non", text)
    found = [_word(token) for token in _TOKEN.findall(_part_units(text))]
    return [_in_context(token, found, position) for position, token in enumerate(found)]


def _part_units(text: str) -> str:
    """`5mm` becomes `5 mm`; labels such as `l4` and `stage 2a` stay whole."""
    parts = _LABEL.split(text)
    return "".join(part if index % 2 else _NUMBER_UNIT.sub(r"\1 ", part) for index, part in enumerate(parts))


def _word(token: str) -> str:
    if token[0].isdigit():
        return _number(token)
    token = NUMBER_WORDS.get(token, token)
    for british, american in lexicon().spelling.items():
        token = american + token[len(british) :] if token.startswith(british) else token
    if token in _NO_PLURAL:
        return token
    if len(token) > 4 and token.endswith("ies"):
        return token[:-3] + "y"
    is_plural = len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "us", "is", "as", "os"))
    return token[:-1] if is_plural else token


def _number(token: str) -> str:
    whole = re.sub(r",(?=\d{3}\b)", "", token).replace(",", ".")
    head, dot, tail = whole.partition(".")
    tail = tail.rstrip("0")
    return (head.lstrip("0") or "0") + (dot + tail if tail else "")


def _in_context(token: str, found: list[str], position: int) -> str:
    if token == "second" and not found[max(0, position - 1)][:1].isdigit():
        return "2"
    match = _ROMAN_PART.match(token)
    neighbours = found[max(0, position - 1) : position] + found[position + 1 : position + 2]
    if match is None or match[1] not in ROMAN or not lexicon().numbered.intersection(neighbours):
        return token
    return f"{ROMAN[match[1]]}{match[2]}"
