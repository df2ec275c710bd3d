"""A short clinical phrase taken apart: what is named, and its side, polarity, numbers, stage and other opposites.

Two phrases that name the same thing but differ in one of these say opposite things, however alike their words are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from reward_fns.clinical_rules.lexicon import lexicon
from reward_fns.clinical_rules.quantities import Quantity, take_quantities
from reward_fns.clinical_rules.words import tokens


@dataclass(frozen=True)
class Statement:
    """`words` are what is left when axes, negation and numbers are taken out, in order."""

    words: tuple[str, ...]
    negated: bool
    content: frozenset[str]
    """The words, and the axes' values."""
    denied: frozenset[str]
    """The content that the negation speaks about; all of it where it does not say."""
    denied_axes: frozenset[str]
    """The axes among it."""
    reply: str | None
    """A leading yes or no, or what amounts to one: `none`, `not seen`, `present`."""
    axes: Mapping[str, frozenset[str]]
    quantities: tuple[Quantity, ...]
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
    quantities, found = take_quantities(found)
    parts = _Parts()
    for position, token in enumerate(found):
        parts.take(token, found, position)
    parts.drop_denied_side()
    negated, said = parts.negations % 2 == 1, bool(parts.content or labels or quantities)
    if not said and (parts.negations or parts.affirmed):
        # `none`, `not seen`, `No, absent`: an answer to the question and nothing else.
        reply, negated = reply or ("no" if parts.negations else "yes"), False
    scope = parts.scope if parts.content[parts.scope :] else 0
    return Statement(
        words=tuple(parts.words),
        negated=negated,
        content=frozenset(parts.content),
        denied=frozenset(parts.content[scope:]) if negated else frozenset(),
        denied_axes=frozenset(axis for axis, at in parts.places.items() if at >= scope) if negated else frozenset(),
        reply=reply,
        axes={name: frozenset(values) for name, values in parts.axes.items()},
        quantities=quantities,
        labels=labels,
    )


@dataclass
class _Parts:
    """What a phrase is made of, collected token by token."""

    words: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    axes: dict[str, set[str]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    """Axis -> where in `content` it was last named."""
    denied_side: str | None = None
    negations: int = 0
    scope: int = 0
    """Where in `content` the last negation stands."""
    affirmed: bool = False

    def take(self, token: str, found: list[str], position: int) -> None:
        lists = lexicon()
        axis, value = lists.axes.get(token, ("", ""))
        if token in lists.negations or (token == "negative" and found[position + 1 : position + 2] == ["for"]):
            self.negations += 1
            self.scope = len(self.content)
        elif axis == "side" and "not" in found[max(0, position - 3) : position]:
            self.denied_side = value
        elif axis or token in lists.implied:
            named = not axis
            axis, value = lists.implied[token] if named else (axis, value)
            self.axes.setdefault(axis, set()).add(value)
            self.places[axis] = len(self.content)
            self._add(token if named else value, named)
        elif token in lists.affirmations:
            self.affirmed = True
        elif token not in lists.small_words or (token == "a" and position and position == len(found) - 1):
            self._add(token, True)

    def _add(self, content: str, is_word: bool) -> None:
        self.content.append(content)
        if is_word:
            self.words.append(content)

    def drop_denied_side(self) -> None:
        """`left, not right` and `not right but left` say left; `not right` alone denies right."""
        if self.denied_side is None:
            return
        if "side" in self.axes:
            self.negations -= 1
            return
        self.axes["side"], self.places["side"] = {self.denied_side}, len(self.content)
        self._add(self.denied_side, False)


def _take_reply(found: list[str], comma: bool) -> tuple[str | None, list[str]]:
    if not found or found[0] not in ("yes", "no"):
        return None, found
    # "No there is no fracture" replies, and then denies; "no fracture" only denies.
    if len(found) == 1 or comma or found[0] == "yes" or lexicon().negations.intersection(found[1:]):
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
        lettered = len(after) == 1 and after.isalpha()
        if token in lexicon().numbered and (after[:1].isdigit() or lettered):
            labels.add(f"{token} {after}")
            position += 1
        elif len(token) <= 3 and token[0] in "ctlsnmp" and token[1:2].isdigit():
            labels.add(token)
        else:
            rest.append(token)
    return frozenset(labels), rest
