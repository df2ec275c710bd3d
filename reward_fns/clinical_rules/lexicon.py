"""The word lists of the rules, read from `lexicon.yaml` beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

LEXICON_FILE: Final = Path(__file__).with_name("lexicon.yaml")


@dataclass(frozen=True)
class Lexicon:
    """Words are in normalised form, except in `synonyms`, which are as written."""

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
    """The shipped word lists."""
    raw: dict[str, Any] = yaml.safe_load(LEXICON_FILE.read_text(encoding="utf-8"))
    return Lexicon(
        small_words=frozenset(raw["small_words"].split()),
        negations=frozenset(raw["negations"].split()),
        affirmations=frozenset(raw["affirmations"].split()),
        numbered=frozenset(raw["numbered"].split()),
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
