"""Cut a clinical phrase into normalised tokens: spelling, plurals, number words, roman numerals, units, signs.

Nothing is dropped here but punctuation between words: a sign that no rule knows stays as a token of its own, so that
two phrases that differ in it have different tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

RATIOS: Final = {"/": "∕", ":": "∶", "+": "∔", "-": "⁓", "to": "⁓", "of": "∕"}
"""Signs that join two numbers to one finding, and their tokens there: blood pressure, ratio, sum, range."""
TIMES: Final = "×"
"""Joins the sides of a size, whose order is free."""
JOINS: Final = frozenset((*RATIOS.values(), TIMES))
NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:\^-?\d+)?")

_PAUSES: Final = frozenset(",;.()[]{}\"'“”‘’-_")
_TOKEN = re.compile(
    r"(?<![^\W_])-(?:\d+(?:[.,]\d+)*|[.,]\d+)"  # a minus stands at the start or after a blank: T2-5 holds none
    r"|\d+[a-d]\b"
    r"|(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:\^-?\d{1,3})?\+?"
    # A word, a name with digits (COVID-19, CoV-2, HLA-B27) or a marker (ER+, PR-), as one.
    r"|[^\W\d_]+(?:(?<![^\W\d_]{9})-?\d+[^\W_]*)*(?:\^-?\d{1,3})?(?:[+-](?![^\W_]))?"
    r"|\S"
)
_JOINED = re.compile(r"(?<=\d)\s*(?:([/:+-])|\b(to|of)\b)\s*(?=[.,]?\d)", re.IGNORECASE)
_SIZE = re.compile(r"(?<=\d)(\s*(?:[cm]m)?)\s*[x×*]\s*(?=\.?\d)", re.IGNORECASE)
_PER = re.compile(r"(?<=[^\W_])\s*/\s*(?=[^\W\d_])|(?<=%)\s*/\s*(?=[^\W\d_])")
_COMPARED = (
    (re.compile(r"\b(?:less|fewer|smaller|shorter|lower) than\s+(?=[-.]?\d)", re.IGNORECASE), "< "),
    (re.compile(r"\b(?:more|greater|larger|longer|higher) than\s+(?=[-.]?\d)", re.IGNORECASE), "> "),
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_VULGAR = re.compile(r"(\d*)\s?([½⅓⅔¼¾⅛⅜⅝⅞])")
_TNM = re.compile(r"\b(t(?:\d[a-d]?|x))(n(?:\d[a-c]?|x))(m(?:\d|x))?\b", re.IGNORECASE)
_NUMBER_UNIT = re.compile(r"(\d)(?=[^\W\d_]|%)")
_LABEL = re.compile(r"\b([ctlsnmp]\d{1,2}[a-d]?\b|(?:stage|grade|type|class)\s+\S+|[^\W\d_]+-?\d[\w-]*)", re.IGNORECASE)
_WRITTEN_UNITS: Final = re.compile(r"[a-zµμ%]+|[a-zµμ]?L|c?Gy|mmHg|HU|mEq|[kM]?Pa|M?Hz|IU|[CF]")

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_ONES: Final = {word: number for number, word in enumerate([*_SMALL.split(), "eighteen", "nineteen"])}
_TENS: Final = {
    word: 10 * number
    for number, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)  # noqa: SIM905
}
_SCALES: Final = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_ORDINALS: Final = {
    **{word: n for n, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth", "seventh"), 1)},
    **{"eighth": 8, "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12},
}
_PARTS: Final = {"half": 2, "halve": 2, "quarter": 4, **{word: n for word, n in _ORDINALS.items() if n > 2}}
_ROMAN: Final = {
    word: str(n) for n, word in enumerate(("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"), 1)
}
_ROMAN_PART: Final = re.compile(r"^([ivx]+)([abc]?)$")
_NO_PLURAL: Final = frozenset(("series", "caries", "rabies", "scabies", "herpes", "diabetes", "ascites"))


@dataclass(frozen=True)
class Lexicon:
    """The word lists of `lexicon.yaml`. Words are in normalised form, except in `synonyms`, which are as written."""

    small_words: frozenset[str]
    negations: frozenset[str]
    affirmations: frozenset[str]
    numbered: frozenset[str]
    """Words whose neighbour is a label, so that a roman numeral beside them is a number."""
    spelling: Mapping[str, str]
    units: Mapping[str, tuple[str, float]]
    """Unit -> base unit and factor."""
    axes: Mapping[str, tuple[str, str]]
    """Word -> axis and its value there."""
    implied: Mapping[str, tuple[str, str]]
    """The same for words that name something of their own besides."""
    prefixes: tuple[tuple[str, str], ...]
    suffixes: tuple[tuple[str, str], ...]
    synonyms: tuple[tuple[str, ...], ...]


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """Return the shipped word lists."""
    raw: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("lexicon.yaml").read_text(encoding="utf-8"))
    lists = {name: frozenset(raw[name].split()) for name in ("small_words", "negations", "affirmations", "numbered")}
    return Lexicon(
        **lists,
        spelling=raw["spelling"],
        units={unit: (base, float(factor)) for base, units in raw["units"].items() for unit, factor in units.items()},
        axes=_by_word(raw["axes"]),
        implied=_by_word(raw["implied"]),
        prefixes=tuple((first, second) for first, second in raw["prefixes"]),
        suffixes=tuple((first, second) for first, second in raw["suffixes"]),
        synonyms=tuple(tuple(str(phrase) for phrase in group) for group in raw["synonyms"]),
    )


def _by_word(axes: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    places = ((axis, value, words) for axis, values in axes.items() for value, words in values.items())
    return {word: (axis, value) for axis, value, words in places for word in words.split()}


def tokens(text: str) -> list[str]:
    """Return normalised tokens in order: lower case, American spelling, singular, numbers as digits."""
    text = _with_signs(_plain(text))
    text = re.sub(r"\bnon[- ]+(?=[a-z])", "non", text, flags=re.IGNORECASE)
    written = [token for token in _TOKEN.findall(_part_units(text)) if token not in _PAUSES]
    befores = ["", *written]
    found = _count(
        [_word(token, bool(NUMBER.fullmatch(before))) for token, before in zip(written, befores, strict=False)]
    )
    return [_in_context(token, found, position) for position, token in enumerate(found)]


def _plain(text: str) -> str:
    """Return one character for each meaning: superscripts as `^9`, fractions as decimals, full-width forms as plain."""
    text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
    text = _VULGAR.sub(lambda match: f" {int(match[1] or 0) + unicodedata.numeric(match[2]):.6g}", text)
    text = unicodedata.normalize("NFKC", text.replace("º", "°"))
    text = text.translate({0x3BC: "u", 0x2212: "-", 0x2010: "-", 0x2011: "-", 0x2013: "-", 0x2044: "/"})
    text = re.sub(r"['’]s\b", " ", re.sub(r"°\s*", " degree ", text))
    return _TNM.sub(lambda match: " ".join(part or "" for part in match.groups()), text)


def _with_signs(text: str) -> str:
    """Return `text` with what joins or compares numbers as signs of their own, told from the same sign elsewhere."""
    text = re.sub(r"(?<![\w.)])\+(?=\.?\d)", "", text)  # +5 is 5
    text = re.sub(r"(?<![\w.)])minus (?=\.?\d)", "-", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", text, flags=re.IGNORECASE)
    text = _SIZE.sub(rf"\1 {TIMES} ", text)
    text = _JOINED.sub(lambda match: f" {RATIOS[(match[1] or match[2]).lower()]} ", text)
    for words, sign in _COMPARED:
        text = words.sub(sign, text)
    text = re.sub(r"\bdegrees? (?=[cf]\b|celsius|fahrenheit)", "degree", text, flags=re.IGNORECASE)
    return _PER.sub(" per ", re.sub(r"<\s*=", "≤", re.sub(r">\s*=", "≥", text)))


def _part_units(text: str) -> str:
    """Return `5 mm` for `5mm`; labels such as `l4` and `stage 2a`, and names with digits, stay whole."""
    parts = _LABEL.split(text)
    return "".join(part if index % 2 else _NUMBER_UNIT.sub(r"\1 ", part) for index, part in enumerate(parts))


def _word(token: str, after_number: bool) -> str:
    if NUMBER.fullmatch(token.replace(",", ".", 1).lstrip("-.")) and not token.endswith("+"):
        return _number(token)
    word = token.lower()
    if after_number and word in lexicon().units and not _WRITTEN_UNITS.fullmatch(token):
        return token  # 5 MV is not 5 mV, 5 G not 5 g
    for british, american in lexicon().spelling.items():
        word = american + word[len(british) :] if word.startswith(british) else word
    if word in _NO_PLURAL or not word.isalpha():
        return word
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    is_plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "as", "os"))
    return word[:-1] if is_plural else word


def _number(token: str) -> str:
    base, hat, exponent = token.partition("^")
    sign, digits = ("-", base[1:]) if base[0] == "-" else ("", base)
    whole = re.sub(r",(?=\d{3}\b)", "", digits).replace(",", ".")
    head, dot, tail = whole.partition(".")
    tail = tail.rstrip("0")
    number = sign + (head.lstrip("0") or "0") + (dot + tail if tail else "")
    return f"{number}^{int(exponent)}" if hat else number


def _count(found: list[str]) -> list[str]:
    """Return the tokens with number words as digits: `seventy two`, `one and a half`, `two third`, `fifth`."""
    counted: list[str] = []
    position = 0
    while position < len(found):
        value, length = _number_words(found, position)
        rest = found[position + length : position + length + 3]
        if not length:
            counted.append(found[position])
            length = 1
        elif rest[:3] == ["and", "a", "half"]:
            counted.append(f"{value + 0.5:g}")
            length += 3
        elif rest and rest[0] in _PARTS and value < 20:
            counted += [str(value), RATIOS["/"], str(_PARTS[rest[0]])]
            length += 1
        else:
            counted.append(str(value))
        position += length
    return counted


def _number_words(found: list[str], position: int) -> tuple[int, int]:
    """Return the number that starts at `position` in words and how many tokens it takes; no token if there is none."""
    total = current = length = 0
    last = 10**9  # each part is smaller than the one before it, unless a scale stands between them
    for token in found[position:]:
        value = _ONES.get(token, _TENS.get(token))
        if token in _SCALES and length and last < 100:
            current, last = max(current, 1) * _SCALES[token], 100
            if _SCALES[token] > 100:
                total, current, last = total + current, 0, 10**9
        elif value is not None and (last == 10**9 or last == 100 or (last in _TENS.values() and 0 < value < 10)):
            current, last = current + value, value
        elif not length and token in _ORDINALS and token != "second":
            return _ORDINALS[token], 1
        else:
            break
        length += 1
    return total + current, length


def _in_context(token: str, found: list[str], position: int) -> str:
    if token == "second" and not found[max(0, position - 1)][:1].isdigit():
        return "2"
    match = _ROMAN_PART.match(token)
    neighbours = found[max(0, position - 1) : position] + found[position + 1 : position + 2]
    if match is None or match[1] not in _ROMAN or not lexicon().numbered.intersection(neighbours):
        return token
    return f"{_ROMAN[match[1]]}{match[2]}"
