"""Finds the plain clinical flip between two phrases: side, negation, number, unit, stage, site and other opposites."""

from __future__ import annotations

from collections.abc import Iterator

from medix.rule_judge.lexicon import lexicon
from medix.rule_judge.statement import Statement, read_statement


def find_contradiction(gold: str, answer: str) -> str | None:
    """The first flip found, as `kind: in the reference / in the answer`; None where none is plain.

    Only what both phrases speak about can clash: what one leaves out is for a judge to weigh.
    """
    left, right = read_statement(gold), read_statement(answer)
    if left.reply and right.reply and left.reply != right.reply:
        return f"reply: {left.reply} / {right.reply}"
    for axis, values in left.axes.items():
        others = right.axes.get(axis)
        if others and _clash(axis, values, others):
            return f"{axis}: {_names(values)} / {_names(others)}"
    return _numbers(left, right) or _affixes(left, right) or _negation(left, right)


def _clash(axis: str, values: frozenset[str], others: frozenset[str]) -> bool:
    # A side is exact. On other axes a phrase may name several (vessels of lung and heart): only disjoint ones clash.
    return _sides(values) != _sides(others) if axis == "side" else not values & others


def _sides(values: frozenset[str]) -> frozenset[str]:
    return values - {"both"} | {"left", "right"} if "both" in values else values


def _numbers(left: Statement, right: Statement) -> str | None:
    if left.labels and right.labels and not _same_labels(left.labels, right.labels):
        return f"label: {_names(left.labels)} / {_names(right.labels)}"
    if not left.quantities or not right.quantities:
        return None
    missing = [quantity for quantity in left.quantities if not _has(right, quantity)]
    if not missing:
        return None
    return f"number: {_amounts(left.quantities)} / {_amounts(right.quantities)}"


def _same_labels(labels: frozenset[str], others: frozenset[str]) -> bool:
    kinds, other_kinds = ({label.split()[0] for label in group if " " in label} for group in (labels, others))
    if kinds and other_kinds and not kinds & other_kinds:
        return True  # a stage beside a grade: different things, not a clash
    return labels <= others or others <= labels


def _has(statement: Statement, wanted: tuple[float, str]) -> bool:
    value, unit = wanted
    return any(
        value == other and (unit == its_unit or not unit or not its_unit) for other, its_unit in statement.quantities
    )


def _affixes(left: Statement, right: Statement) -> str | None:
    words, others = set(left.words), set(right.words)
    for word in words - others:
        for opposite in _opposites(word):
            if opposite in others - words:
                return f"opposite: {word} / {opposite}"
    return None


def _opposites(word: str) -> Iterator[str]:
    for pair in lexicon().prefixes:
        for one, other in (pair, pair[::-1]):
            if word.startswith(one):
                yield other + word[len(one) :]
    for pair in lexicon().suffixes:
        for one, other in (pair, pair[::-1]):
            if word.endswith(one):
                yield word.removesuffix(one) + other


def _negation(left: Statement, right: Statement) -> str | None:
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


def _amounts(quantities: frozenset[tuple[float, str]]) -> str:
    return "+".join(f"{value:g}{unit}" for value, unit in sorted(quantities))
