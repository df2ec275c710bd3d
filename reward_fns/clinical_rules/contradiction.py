"""The guard: find the plain clinical flip between two phrases, or stay silent so that a judge is asked.

It speaks only if both phrases were read completely: a word, sign or number that one has and the other has not, and that
no list knows, may be another way to say the same, so it makes the guard silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from reward_fns.clinical_rules.rule_judge import read_folded
from reward_fns.clinical_rules.statement import Statement
from reward_fns.clinical_rules.words import lexicon


@lru_cache(maxsize=8192)
def find_contradiction(reference: str, candidate: str) -> str | None:
    """Return the first flip found, as `kind: in the reference / in the candidate`; None if none is plain.

    Only what both phrases speak about can clash: what one leaves out is for a judge to weigh.

    Example:
        >>> find_contradiction("left pleural effusion", "right pleural effusion")
        'side: left / right'
        >>> find_contradiction("left pleural effusion", "fluid on the right") is None
        True
    """
    left, right = read_folded(reference), read_folded(candidate)
    if left is None or right is None:
        return None
    if left.reply and right.reply and left.reply != right.reply and not (left.words or right.words):
        return f"reply: {left.reply} / {right.reply}"
    ours, theirs = Counter(left.words), Counter(right.words)
    only_left, only_right = list((ours - theirs).elements()), list((theirs - ours).elements())
    if only_left or only_right:
        return _opposite(only_left, only_right, left, right)
    if left.negations != right.negations:
        return _negation(left, right)
    return _axes(left, right) or _numbers(left, right)


def _axes(left: Statement, right: Statement) -> str | None:
    for axis, values in left.axes.items():
        others = right.axes.get(axis, values)
        if axis == "side" and "both" in values | others:
            clash = _sides(values) != _sides(others)
        else:
            # With several values (the ill side and the sound one) it is not plain which belongs to what.
            clash = values != others and len(values) == len(others) == 1 and "one" not in values | others
        if clash:
            return f"{axis}: {_names(values)} / {_names(others)}"
    return None


def _sides(values: frozenset[str]) -> frozenset[str]:
    return values - {"both"} | {"left", "right"} if "both" in values else values


def _numbers(left: Statement, right: Statement) -> str | None:
    ours, theirs = left.labels, right.labels
    kinds, other_kinds = ({label.split()[0] for label in group if " " in label} for group in (ours, theirs))
    # Not a stage beside a grade, and not type 2 beside its subtype 2a.
    apart = not any(one.startswith(other) or other.startswith(one) for one in ours - theirs for other in theirs - ours)
    if len(ours) == len(theirs) and ours != theirs and kinds == other_kinds and apart:
        return f"label: {_names(ours)} / {_names(theirs)}"
    # Which of several numbers answers to which is for a judge to see.
    if len(left.quantities) == len(right.quantities) == 1 and left.quantities[0].clashes(right.quantities[0]):
        return f"number: {left.quantities[0]} / {right.quantities[0]}"
    return None


def _negation(left: Statement, right: Statement) -> str | None:
    """Return the clash of a phrase with its denial: one negation on one side, and nothing denied that is not there."""
    denied, stated = (left, right) if left.negations else (right, left)
    if denied.negations != 1 or stated.negations or left.reply or right.reply:
        return None
    if any(stated.axes.get(axis) != values for axis, values in denied.axes.items()) or "result" in stated.axes:
        return None
    if not set(denied.quantities) <= set(stated.quantities) or not denied.labels <= stated.labels:
        return None
    return "negation: absent / present" if denied is left else "negation: present / absent"


def _opposite(only_left: list[str], only_right: list[str], left: Statement, right: Statement) -> str | None:
    """Return the clash of two words of which one is the other's opposite, if nothing else parts the phrases."""
    if len(only_left) != 1 or len(only_right) != 1 or left.negations or right.negations:
        return None
    # `malignant adenoma` is an adenocarcinoma: what else is said has to be the same.
    if left.axes.keys() != right.axes.keys() or any(len(v) > 1 for s in (left, right) for v in s.axes.values()):
        return None
    one, other = only_left[0], only_right[0]
    return f"opposite: {one} / {other}" if other in _opposites(one) else None


def _opposites(word: str) -> Iterator[str]:
    for pair in lexicon().prefixes:
        for one, other in (pair, pair[::-1]):
            if word.startswith(one) and len(word) > len(one) + 3:
                yield other + word[len(one) :]
    for pair in lexicon().suffixes:
        for one, other in (pair, pair[::-1]):
            if word.endswith(one):
                yield word.removesuffix(one) + other


def _names(values: frozenset[str]) -> str:
    return "+".join(sorted(values))
