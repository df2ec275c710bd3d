"""Take a short clinical phrase apart: what is named, and its side, polarity, numbers, stage and other opposites.

Two phrases that name the same thing but differ in one of these say opposite things, however alike their words are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

from reward_fns.clinical_rules.words import JOINS, NUMBER, TIMES, lexicon

_BOUNDS = {"<": "below", "≤": "below", ">": "above", "≥": "above"}
_LABEL = re.compile(r"[0-9]+[a-d]?|[a-z]")
_ASKING = frozenset(("is", "are", "has", "doe", "do", "did", "can", "could", "may"))  # `does` without its s


@dataclass(frozen=True)
class Quantity:
    """One number, or several joined ones: `140/90`, `1-2 cm`, `5 x 3 mm`. Only the sides of a size have no order."""

    values: tuple[float, ...]
    """In the base unit."""
    unit: str
    """The base unit, `g per l` for a quotient; empty for bare numbers."""
    bound: str = ""
    """`below` or `above`, if the number is a bound."""

    def __str__(self) -> str:
        return f"{self.bound} {'|'.join(f'{value:g}' for value in self.values)}{self.unit}".strip()

    def clashes(self, other: Quantity) -> bool:
        """Return whether both can not be true. Another unit, or none, is for a judge to convert: 10 % beside 0.1."""
        if self.unit != other.unit or len(self.values) != len(other.values):
            return False
        if self.bound == other.bound:
            return self.values != other.values
        if not self.bound or not other.bound:
            return False  # "< 5" beside "3" may agree
        below, above = (self, other) if self.bound == "below" else (other, self)
        return below.values <= above.values


@dataclass(frozen=True)
class Statement:
    """A phrase taken apart. What no list knows is a word; nothing that was written is left out but small words."""

    words: tuple[str, ...]
    """What is left when axes, negation and numbers are taken out, sorted."""
    negations: int
    reply: str | None
    """A leading yes or no, or what amounts to one: `none`, `not seen`, `present`."""
    axes: Mapping[str, frozenset[str]]
    axis_words: int
    """How many words named them: `left left lung` is not `left lung`."""
    quantities: tuple[Quantity, ...]
    labels: frozenset[str]
    """Stages, grades, vertebral levels, TNM parts and the like: `stage 2`, `l4`, `t2`."""


def read_tokens(found: list[str], comma_after_reply: bool = False) -> Statement:
    """Return the statement that normalised tokens make. Never raises."""
    reply, found = _take_reply(found, comma_after_reply)
    labels, found = _take_labels(found)
    quantities, found = _take_quantities(found)
    lists = lexicon()
    words: list[str] = []
    axes: dict[str, set[str]] = {}
    negations = axis_words = 0
    affirmed = False
    for position, token in enumerate(found):
        axis, value = lists.axes.get(token) or lists.implied.get(token) or ("", "")
        if token in lists.negations and (token != "absence" or found[position + 1 : position + 2] == ["of"]):
            negations += 1
        elif axis:
            axes.setdefault(axis, set()).add(value)
            axis_words += 1
            if token in lists.implied:
                words.append(token)
        elif token in lists.affirmations:
            affirmed = True
        elif _is_content(token, position, len(found)):
            words.append(token)
    if not (words or axes or labels or quantities) and (negations or affirmed) and not (reply == "yes" and negations):
        # `none`, `not seen`, `No, absent`: an answer to the question and nothing else.
        reply, negations = reply or ("no" if negations else "yes"), 0
    return Statement(
        words=tuple(sorted(words)),
        negations=negations,
        reply=reply,
        axes={name: frozenset(values) for name, values in axes.items()},
        axis_words=axis_words,
        quantities=quantities,
        labels=labels,
    )


def _is_content(token: str, position: int, count: int) -> bool:
    """Return whether a token says something: no small word, or one that ends a name (`a`) or opens a question."""
    if token not in lexicon().small_words:
        return True
    return (token == "a" and 0 < position == count - 1) or (position == 0 < count - 1 and token in _ASKING)


def _take_reply(found: list[str], comma: bool) -> tuple[str | None, list[str]]:
    if not found or found[0] not in ("yes", "no"):
        return None, found
    # "No there is no fracture" replies, and then denies; "no fracture" only denies.
    if len(found) == 1 or comma or found[0] == "yes" or lexicon().negations.intersection(found[1:]):
        return found[0], found[1:]
    return None, found


def _take_labels(found: list[str]) -> tuple[frozenset[str], list[str]]:
    """Return labels such as `stage 2a`, `l4` or `n1`, and the other tokens."""
    labels = set[str]()
    rest = list[str]()
    tokens = iter(zip_longest(found, found[1:], fillvalue=""))
    for token, after in tokens:
        if token in lexicon().numbered and _LABEL.fullmatch(after):
            labels.add(f"{token} {after}")
            next(tokens)
        elif len(token) <= 3 and token[0] in "ctlsnmp" and token[1:2].isdigit() and token.isalnum():
            labels.add(token)
        else:
            rest.append(token)
    return frozenset(labels), rest


def _take_quantities(found: list[str]) -> tuple[tuple[Quantity, ...], list[str]]:
    """Return the quantities among normalised tokens, sorted; and the other tokens."""
    quantities: list[Quantity] = []
    rest: list[str] = []
    position = 0
    while position < len(found):
        if not NUMBER.fullmatch(found[position]):
            rest.append(found[position])
            position += 1
            continue
        bound = _BOUNDS.get(rest[-1], "") if rest else ""
        if bound:
            rest.pop()
        quantity, position = _read(found, position, bound)
        quantities.append(quantity)
    return tuple(sorted(quantities, key=str)), rest


def _read(found: list[str], position: int, bound: str) -> tuple[Quantity, int]:
    """Return the quantity that starts at `position`, and where it ends."""
    numbers: list[tuple[float, str]] = []
    joins = set()
    while True:
        value = _value(found[position])
        unit, position = _unit(found, position + 1)
        numbers.append((value, unit))
        join, after = (*found[position : position + 2], "", "")[:2]
        if join not in JOINS or not NUMBER.fullmatch(after):
            break
        joins.add(join)
        position += 1
    last = numbers[-1][1]
    scaled = [_in_base(value, unit or last) for value, unit in numbers]
    # 1:2, 1/2 and 1-2 are three things; 5 x 3 and 3 x 5 are one.
    kind = "" if len(numbers) == 1 or joins == {TIMES} else f" {'|'.join(sorted(joins))}"
    return Quantity(tuple(sorted(scaled) if joins == {TIMES} else scaled), _base(last) + kind, bound), position


def _value(token: str) -> float:
    base, hat, exponent = token.partition("^")
    try:
        return float(base) ** int(exponent) if hat else float(base)
    except (OverflowError, ZeroDivisionError):
        return float("inf")


def _unit(found: list[str], position: int) -> tuple[str, int]:
    """Return `mg`, `mg per l`, `per l` or nothing, and where it ends."""
    units = lexicon().units
    unit = found[position] if position < len(found) and found[position] in units else ""
    position += bool(unit)
    if found[position : position + 1] == ["per"] and position + 1 < len(found) and found[position + 1] in units:
        return f"{unit} per {found[position + 1]}", position + 2
    return unit, position


def _in_base(value: float, unit: str) -> float:
    units = lexicon().units
    over, _, under = unit.partition(" per ")
    factor = (units[over][1] if over else 1.0) / (units[under][1] if under else 1.0)
    return float(f"{value * factor:.9g}")


def _base(unit: str) -> str:
    units = lexicon().units
    return " per ".join(units[part][0] if part else "" for part in unit.split(" per ")) if unit else ""
