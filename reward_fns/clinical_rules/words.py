"""From a clinical phrase to normalised tokens: spelling, plurals, number words, roman numerals."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from reward_fns.clinical_rules.lexicon import lexicon

RATIOS: Final = {"/": "∕", ":": "∶", "+": "∔", "-": "~", "to": "~", "of": "∕"}
"""Signs that join two numbers to one finding, and their tokens there: blood pressure, ratio, sum, range."""
TIMES: Final = "×"
"""Joins the sides of a size, whose order is free."""
JOINS: Final = frozenset((*RATIOS.values(), TIMES))

_TOKEN = re.compile(
    r"\d+[a-d]\b"
    r"|(?<![\w.)])-(?:\d+(?:[.,]\d+)*|\.\d+)"  # a sign stands at the start or after a blank: T2-5 holds no minus
    r"|(?:\d+(?:[.,]\d+)*|\.\d+)(?:\^-?\d{1,3})?"
    r"|[a-z]+\d*[a-z]?(?:\^-?\d{1,3})?|[%‰<>≥≤=+~×∕∶∔]"
)
_NUMBER = r"(?=[-.]?\d)"
_JOINED = re.compile(r"(?<=\d)\s*(?:([/:+-])|\b(to|of)\b)\s*(?=\.?\d)")
_SIZE = re.compile(r"(?<=\d)(\s*(?:[cm]m)?)\s*[x×*]\s*(?=\.?\d)")
_PER = re.compile(r"(?<=[a-z\d%])\s*/\s*(?=[a-z])")
_COMPARED = (
    (re.compile(rf"\b(?:less|fewer|smaller|shorter|lower) than\s+{_NUMBER}"), "< "),
    (re.compile(rf"\b(?:more|greater|larger|longer|higher) than\s+{_NUMBER}"), "> "),
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_VULGAR = re.compile("(?<=\\d)(?=[½⅓⅔¼¾⅛⅜⅝⅞])")
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
    text = _plain(text).lower()
    text = (
        _TNM.sub(lambda match: " ".join(part or "" for part in match.groups()), text)
        .replace("'s", " ")
        .replace("’s", " ")
    )
    text = _with_signs(text)
    text = re.sub(r"\bnon[- ]+(?=[a-z])", "non", text)
    found = [_word(token) for token in _TOKEN.findall(_part_units(text))]
    return [_in_context(token, found, position) for position, token in enumerate(found)]


def _plain(text: str) -> str:
    """One character for each meaning: superscripts as `^9`, subscripts and full-width forms as plain ones."""
    text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), _VULGAR.sub(" ", text))
    text = unicodedata.normalize("NFKC", text.replace("º", "°"))
    text = text.translate({0x3BC: "u", 0x2212: "-", 0x2013: "-", 0x2044: "/"})
    return re.sub(r"°\s*", " degree ", text)


def _with_signs(text: str) -> str:
    """What joins or compares numbers as signs of their own, told from the same sign elsewhere."""
    text = re.sub(r"(?<![\w.)])\+(?=\.?\d)", "", text)  # +5 is 5
    text = _SIZE.sub(rf"\1 {TIMES} ", text)
    text = _JOINED.sub(lambda match: f" {RATIOS[match[1] or match[2]]} ", text)
    for words, sign in _COMPARED:
        text = words.sub(sign, text)
    text = re.sub(r"\bdegrees? (?=[cf]\b|celsius|fahrenheit)", "degree", text)
    return _PER.sub(" per ", re.sub(r"<\s*=", "≤", re.sub(r">\s*=", "≥", text)))


def _part_units(text: str) -> str:
    """`5mm` becomes `5 mm`; labels such as `l4` and `stage 2a` stay whole."""
    parts = _LABEL.split(text)
    return "".join(part if index % 2 else _NUMBER_UNIT.sub(r"\1 ", part) for index, part in enumerate(parts))


def _word(token: str) -> str:
    if token[-1].isdigit() and (token[0].isdigit() or token[0] in "-."):
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
    base, hat, exponent = token.partition("^")
    sign, digits = ("-", base[1:]) if base[0] == "-" else ("", base)
    whole = re.sub(r",(?=\d{3}\b)", "", digits).replace(",", ".")
    head, dot, tail = whole.partition(".")
    tail = tail.rstrip("0")
    number = sign + (head.lstrip("0") or "0") + (dot + tail if tail else "")
    return f"{number}^{int(exponent)}" if hat else number


def _in_context(token: str, found: list[str], position: int) -> str:
    if token == "second" and not found[max(0, position - 1)][:1].isdigit():
        return "2"
    match = _ROMAN_PART.match(token)
    neighbours = found[max(0, position - 1) : position] + found[position + 1 : position + 2]
    if match is None or match[1] not in ROMAN or not lexicon().numbered.intersection(neighbours):
        return token
    return f"{ROMAN[match[1]]}{match[2]}"
