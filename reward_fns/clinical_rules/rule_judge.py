"""Whether two short answers say the same, by rules: synonyms folded, then compared part by part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from medix.errors import ConfigError
from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.clinical_rules.lexicon import lexicon
from reward_fns.clinical_rules.statement import Statement, read_tokens
from reward_fns.clinical_rules.words import tokens

_ORDER_MATTERS = frozenset(
    (
        "without",
        "versus",
        "than",
        "after",
        "before",
        "over",
        "greater",
        "less",
        "not",
        "but",
        "from",
        "to",
        "vs",
        "<",
        ">",
        "≤",
        "≥",
    )
)


class RuleJudge:
    """Equality of short answers up to spelling, word order, units and a table of synonyms.

    Args:
        synonyms: groups of equivalent phrases, in addition to the shipped ones.
    """

    def __init__(self, synonyms: Iterable[Sequence[str]] = ()) -> None:
        self._concepts = {**_shipped(), **_concepts(synonyms)}
        self._longest = max((len(wording) for wording in self._concepts), default=0)

    def same(self, reference: str, candidate: str, aliases: Sequence[str] = ()) -> bool:
        """Whether `candidate` states `reference` or one of its aliases."""
        return any(self._equal(wording, candidate) for wording in (reference, *aliases))

    def _equal(self, reference: str, candidate: str) -> bool:
        if find_contradiction(reference, candidate):
            return False
        left, right = self.fold(tokens(reference)), self.fold(tokens(candidate))
        if not left or not right:
            return " ".join(reference.split()) == " ".join(candidate.split())
        if left == right:
            return True
        stated, claimed = read_tokens(left), read_tokens(right)
        ordered = _ORDER_MATTERS.intersection(left + right) and (stated.content or claimed.content)
        return not ordered and _same_parts(stated, claimed)

    def fold(self, found: list[str]) -> list[str]:
        """Tokens with every known wording, longest first, replaced by the name of its meaning."""
        folded: list[str] = []
        position = 0
        while position < len(found):
            for length in range(min(self._longest, len(found) - position), 0, -1):
                name = self._concepts.get(tuple(found[position : position + length]))
                if name is not None:
                    folded.extend(name)
                    position += length
                    break
            else:
                folded.append(found[position])
                position += 1
        return folded


def _concepts(groups: Iterable[Sequence[str]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Tokens of each wording -> tokens of its meaning's name; a wording in two groups has its first one's meaning."""
    concepts: dict[tuple[str, ...], tuple[str, ...]] = {}
    for group in groups:
        name = tuple(tokens(group[0]))
        for phrase in group:  # the name too, so that a shorter wording inside it is not replaced
            wording = tuple(tokens(phrase))
            if wording:
                concepts.setdefault(wording, name)
    return concepts


@lru_cache(maxsize=1)
def _shipped() -> dict[tuple[str, ...], tuple[str, ...]]:
    return _concepts(lexicon().synonyms)


def _same_parts(left: Statement, right: Statement) -> bool:
    if len(left.axes.get("side", ())) > 1 or len(right.axes.get("side", ())) > 1:
        return False  # two sides in one phrase: which finding is on which is not ours to guess
    something = left.words or left.axes or left.quantities or left.labels or left.reply
    return bool(something) and (
        left.negated == right.negated
        and left.reply == right.reply
        and left.axes == right.axes
        and left.quantities == right.quantities
        and left.labels == right.labels
        and sorted(left.words) == sorted(right.words)
    )


def load_synonyms(path: Path) -> list[list[str]]:
    """Groups of equivalent phrases from a JSON file: a list of lists of texts.

    Raises:
        ConfigError: no such file, or another content.
    """
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"a JSON file of synonyms at {path}", str(error), "correct --synonyms") from error
    good = isinstance(groups, list) and all(
        isinstance(group, list) and group and all(isinstance(phrase, str) for phrase in group) for group in groups
    )
    if not good:
        raise ConfigError(
            f"a list of lists of texts in {path}", "something else", 'write [["mi", "heart attack"], ...]'
        )
    return [list(group) for group in groups]


@lru_cache(maxsize=8192)
def states_the_same(reference: str, candidate: str) -> bool:
    """Return whether the shipped table of synonyms, and rules of spelling, order and units, call both the same."""
    return _shipped_rules().same(reference, candidate)


@lru_cache(maxsize=1)
def _shipped_rules() -> RuleJudge:
    return RuleJudge()
