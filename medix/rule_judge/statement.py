"""A short clinical phrase taken apart: what is named, and its side, polarity, numbers, stage and other opposites.

Two phrases that name the same thing but differ in one of these say opposite things, however alike their words are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from medix.rule_judge.lexicon import lexicon
from medix.rule_judge.words import tokens

Quantity = tuple[float, str]
"""Value in the base unit, and that unit; the unit is empty for a bare number."""


@dataclass(frozen=True)
class Statement:
    """`words` are what is left when axes, negation and numbers are taken out, in order."""

    words: tuple[str, ...]
    negated: bool
    content: frozenset[str]
    """The words, and the axes' values."""
    denied: frozenset[str]
    """The content that the negation speaks about; all of it where it does not say."""
    reply: str | None
    """A leading yes or no."""
    axes: Mapping[str, frozenset[str]]
    quantities: frozenset[Quantity]
    labels: frozenset[str]
    """Stages, grades, vertebral levels, TNM parts and the like: `stage 2`, `l4`, `t2`."""


@lru_cache(maxsize=8192)
def read_statement(text: str) -> Statement:
    """Take a phrase apart. Never raises."""
    return read_tokens(tokens(text), comma_after_reply="," in text[:5])


def read_tokens(found: list[str], comma_after_reply: bool = False) -> Statement:
    """The same from tokens that are normalised already."""
    reply, found = _take_reply(found, comma_after_reply)
    labels, found = _take_labels(found)
    quantities, found = _take_quantities(found)
    lists = lexicon()
    axes: dict[str, set[str]] = {}
    words: list[str] = []
    content: list[str] = []
    negations, scope = 0, 0
    for position, token in enumerate(found):
        axis, value = lists.axes.get(token, ("", ""))
        if token in lists.negations or (token == "negative" and found[position + 1 : position + 2] == ["for"]):
            negations += 1
            scope = len(content)
        elif axis == "side" and "side" in axes and "not" in found[max(0, position - 3) : position]:
            negations -= 1  # "the left, not the right" says left
        elif axis:
            axes.setdefault(axis, set()).add(value)
            content.append(value)
        elif token in lists.implied:
            axis, value = lists.implied[token]
            axes.setdefault(axis, set()).add(value)
            words.append(token)
            content.append(token)
        elif token not in lists.small_words and token not in lists.affirmations:
            words.append(token)
            content.append(token)
    frozen = {name: frozenset(values) for name, values in axes.items()}
    denied = frozenset(content[scope:] or content) if negations % 2 else frozenset()
    return Statement(tuple(words), negations % 2 == 1, frozenset(content), denied, reply, frozen, quantities, labels)


def _take_reply(found: list[str], comma: bool) -> tuple[str | None, list[str]]:
    if found and found[0] in ("yes", "no") and (len(found) == 1 or comma or found[0] == "yes"):
        return found[0], found[1:]
    return None, found


def _take_labels(found: list[str]) -> tuple[frozenset[str], list[str]]:
    """Labels such as `stage 2a`, `l4` or `n1`, and the other tokens."""
    labels: set[str] = set()
    rest: list[str] = []
    position = 0
    while position < len(found):
        token, after = found[position], found[position + 1] if position + 1 < len(found) else ""
        position += 1
        lettered = len(after) == 1 and after.isalpha() and after != "a"
        if token in lexicon().numbered and (after[:1].isdigit() or lettered):
            labels.add(f"{token} {after}")
            position += 1
        elif len(token) <= 3 and token[0] in "ctlsnmp" and token[1:2].isdigit():
            labels.add(token)
        else:
            rest.append(token)
    return frozenset(labels), rest


def _take_quantities(found: list[str]) -> tuple[frozenset[Quantity], list[str]]:
    quantities: set[Quantity] = set()
    rest: list[str] = []
    position = 0
    while position < len(found):
        token = found[position]
        position += 1
        value = float(token) if token.replace(".", "", 1).isdecimal() else math.nan
        if math.isnan(value):
            rest.append(token)
            continue
        unit, factor = "", 1.0
        if position < len(found) and found[position] in lexicon().units:
            unit, factor = lexicon().units[found[position]]
            position += 1
        quantities.add((float(f"{value * factor:.9g}"), unit))
    return frozenset(quantities), rest
