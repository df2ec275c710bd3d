"""Finds the plain clinical flip between two phrases: side, negation, number, unit, stage, site and other opposites."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from reward_fns.clinical_rules.lexicon import lexicon
from reward_fns.clinical_rules.statement import Statement, read_statement


@lru_cache(maxsize=8192)
def find_contradiction(reference: str, candidate: str) -> str | None:
    """The first flip found, as `kind: in the reference / in the candidate`; None where none is plain.

    Only what both phrases speak about can clash: what one leaves out is for a judge to weigh.
    """
    left, right = read_statement(reference), read_statement(candidate)
    if left.reply and right.reply and left.reply != right.reply:
        return f"reply: {left.reply} / {right.reply}"
    for axis, values in left.axes.items():
        others = right.axes.get(axis)
        # "not malignant" beside "benign": what one denies, the other may well name the opposite of.
        if others and (axis in left.denied_axes) == (axis in right.denied_axes) and _clash(axis, values, others):
            return f"{axis}: {_names(values)} / {_names(others)}"
    return _numbers(left, right) or _affixes(left, right) or _negation(left, right)


def _clash(axis: str, values: frozenset[str], others: frozenset[str]) -> bool:
    if axis == "side" and "both" in values | others:
        return _sides(values) != _sides(others)
    # A phrase may name several values (vessels of lung and heart, the ill side and the sound one), or only that it is
    # one of two sides: disjoint ones clash.
    return not values & others and not (axis == "side" and "one" in values | others)


def _sides(values: frozenset[str]) -> frozenset[str]:
    return values - {"both"} | {"left", "right"} if "both" in values else values


def _numbers(left: Statement, right: Statement) -> str | None:
    if left.labels and right.labels and not _same_labels(left.labels, right.labels):
        return f"label: {_names(left.labels)} / {_names(right.labels)}"
    # Which of several numbers answers to which is for a judge to see.
    if len(left.quantities) == len(right.quantities) == 1 and left.quantities[0].clashes(right.quantities[0]):
        return f"number: {left.quantities[0]} / {right.quantities[0]}"
    return None


def _same_labels(labels: frozenset[str], others: frozenset[str]) -> bool:
    kinds, other_kinds = ({label.split()[0] for label in group if " " in label} for group in (labels, others))
    if kinds and other_kinds and not kinds & other_kinds:
        return True  # a stage beside a grade: different things, not a clash
    return labels <= others or others <= labels


def _affixes(left: Statement, right: Statement) -> str | None:
    words, others = left.content, right.content
    for word in words - others - left.denied:
        for opposite in _opposites(word):
            if opposite in others - words - right.denied:
                return f"opposite: {word} / {opposite}"
    return None


def _opposites(word: str) -> Iterator[str]:
    for pair in lexicon().prefixes:
        for one, other in (pair, pair[::-1]):
            if word.startswith(one) and len(word) > len(one) + 3:
                yield other + word[len(one) :]
    for pair in lexicon().suffixes:
        for one, other in (pair, pair[::-1]):
            if word.endswith(one):
                yield word.removesuffix(one) + other


def _negation(left: Statement, right: Statement) -> str | None:
    if not (left.content and right.content):
        return None  # a bare yes or no, or numbers: `reply` and `number` compare those
    shared = left.content & right.content
    # Without nearly the same words the polarity can not be compared: "no air" may well be "collapsed".
    if left.negated == right.negated or len(shared) < 0.5 * max(len(left.content), len(right.content)):
        return None
    denied = left.denied | right.denied
    if denied and len(denied & shared) <= 0.5 * len(denied):
        return None
    if not shared and left.axes != right.axes:
        return None
    return f"negation: {'absent' if left.negated else 'present'} / {'absent' if right.negated else 'present'}"


def _names(values: frozenset[str]) -> str:
    return "+".join(sorted(values))
