"""Options of a choice question, in whatever shape a table holds them, and which of them is right."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from data_prep.records import Unfit
from data_prep.sources.fields import literal, number_of, present, said

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAME = ("key", "label", "letter")
_TEXT = ("value", "text", "option", "content")
"""Keys of an option that is a mapping of its own."""
_MARKED: Final = re.compile(r"\(?[A-Za-z][.:)]|\(?\d{1,2}[.:)]\s|[-*•]\s")
"""How an option begins that says which one it is, or that it is one."""


def option_pairs(value: Any, separated: bool = False) -> list[tuple[str, str]]:
    """Return (name or empty, text) of each option, of whatever shape the field is; an empty option has an empty text.

    Args:
        separated: the column is known to hold options, so that `|` or the end of a line in a text separates them.

    Raises:
        Unfit: the field is no list and no mapping of texts.
    """
    if isinstance(value, str):
        value = _listed(value, separated)
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # {"label": [...], "text": [...]}
        value = dict(zip(value.get("label") or LETTERS, value["text"], strict=False))
    if isinstance(value, dict):
        found = [(str(name), text) for name, text in value.items()]
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        found = [(str(_first(item, _NAME, "")), _first(item, _TEXT, None)) for item in value]
    elif isinstance(value, list):
        found = [("", item) for item in value]
    else:
        raise Unfit("bad_field", f"options given as {type(value).__name__}")
    if any(isinstance(text, bool | list | dict | bytes) for _, text in found):
        raise Unfit("bad_field", "an option is no text")
    return [(name, said(text) if present(text) else "") for name, text in found]


def _first(item: Mapping[str, Any], names: Sequence[str], default: Any) -> Any:
    return next((item[name] for name in names if name in item), default)


def _listed(value: str, separated: bool) -> Any:
    """Return a list that a text writes: in JSON, in Python, lettered in one text, one a line, or with `|` between."""
    found = literal(value)
    if found is not value:
        return found
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    if len(lines) > 1 and all(re.match(r"\(?[A-Za-z][.:)]", line) for line in lines):
        return lines
    marks = list(re.finditer(r"(?:^|(?<=[\s,;|]))\(?([A-Z])[.:)]\s*", value.strip()))
    if len(marks) > 1 and not marks[0].start() and "".join(mark[1] for mark in marks) == LETTERS[: len(marks)]:
        ends = [*(mark.start() for mark in marks[1:]), None]
        return [value.strip()[mark.end() : end].strip(" ,;|\n") for mark, end in zip(marks, ends, strict=True)]
    bare = value.strip()
    if bare.startswith("|") and bare.endswith("|"):
        bare = bare[1:-1]
    parts = [part.strip() for part in bare.split("|")] if "|" in bare else lines
    # A mark on some of them may be a wrapped line's lack of one, and a number or a bullet would be part of the answer.
    if separated and len(parts) > 1 and not any(map(_MARKED.match, parts)):
        return parts
    raise Unfit("bad_field", "the options are a text that is no list: write a list, or `|` between them")


def choices_of(names: Sequence[str], row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (letter as stated, text) of each option, empty ones included; [] where the row has none."""
    if len(names) > 1:
        pairs = [("", said(row[name]) if present(row.get(name)) else "") for name in names]
    elif names and present(row.get(names[0])):
        pairs = option_pairs(row[names[0]], separated=True)
    else:
        return []
    named = [
        (_letter_of_name(name) or LETTERS[place], text) for place, (name, text) in enumerate(pairs[: len(LETTERS)])
    ]
    prefix = [re.match(rf"\s*\(?{letter}\s*[.:)]\s*", text, re.IGNORECASE) for letter, text in named]
    if all(match or not text for match, (_, text) in zip(prefix, named, strict=True)):
        ends = [match.end() if match else 0 for match in prefix]
        named = [(letter, text[end:].strip()) for end, (letter, text) in zip(ends, named, strict=True)]
    return named if any(text for _, text in named) else []


def _letter_of_name(name: str) -> str:
    match = re.fullmatch(r"(?:(?:OPTION|CHOICE|OP)[ _]?)?([A-Z])", name.strip().strip("().: ").upper())
    return match[1] if match else ""


def first_option(
    names: Sequence[str], stated: Iterable[tuple[Any, Mapping[str, Any]]], is_letter: bool, declared: int | None
) -> int | None:
    """Tell whether the numbers of a column count options from 0 or from 1; None where they are no such numbers.

    Args:
        names: columns of the options.
        stated: a field of the column, and its row.
        is_letter: the column only ever names an option; another one may hold texts.
        declared: what the source says of its numbers.

    Raises:
        Unfit: it cannot be told.
    """
    found: list[tuple[int, Any, list[str]]] = []
    starts = set[int | None]()
    for value, row in stated:
        if (number := number_of(value)) is not None:
            with contextlib.suppress(Unfit):
                found.append((number, value, [text for _, text in choices_of(names, row)]))
                starts.add(_first_name(names, row))
        elif not is_letter:
            return None
    counted = [(number, value, texts) for number, value, texts in found if number >= 0]  # -1 keeps an answer secret
    if not found or (len(starts) == 1 and None not in starts):
        return starts.pop() if found else declared
    if not is_letter and declared is None and all(str(number) in texts for number, _, texts in counted):
        # Numbers among options that are numbers: texts, if they are written as texts or as places mean nothing else.
        written = any(isinstance(value, str) for _, value, _ in counted)
        possible = [base for base in (0, 1) if all(0 <= n - base < len(texts) for n, _, texts in counted)]
        if written or all(texts[n - base] == str(n) for base in possible for n, _, texts in counted):
            return None
        raise Unfit("bad_field", "the numbers may be options' texts or places")
    numbers = {number for number, _, _ in counted}
    if not numbers or 0 in numbers:
        return 0
    if max(len(texts) for *_, texts in counted) in numbers:
        return 1
    if declared is None:
        raise Unfit("bad_field", "the first and the last option are never named")
    return declared


def _first_name(names: Sequence[str], row: Mapping[str, Any]) -> int | None:
    """Return the number of the first option of a mapping from numbers to texts."""
    value = literal(row.get(names[0])) if len(names) == 1 else None
    numbers = [number_of(name) for name in value] if isinstance(value, dict) else [None]
    first = numbers[0] if numbers else None
    return first if first is not None and numbers == list(range(first, first + len(numbers))) else None


def right_option(
    choices: Sequence[tuple[str, str]],
    letters: Sequence[Any],
    answers: Sequence[Any],
    first: int | None,
    lettered: bool,
) -> tuple[str, str]:
    """Return (letter, text) of the right option, letters as in `choices`.

    Args:
        letters: what names it by letter or number, if a row has such a field.
        answers: what names it in any way.
        first: number of the first option, None where that is not known.
        lettered: a column names options by letter or number; then the numbers of another one are texts.

    Raises:
        Unfit: no option is named, or letter and text name different ones.
    """
    by_letter = [_named_option(value, choices, first, True) for value in letters[:1]]
    by_answer = [_named_option(value, choices, None if lettered else first, False) for value in answers[:1]]
    if None in by_letter or (not by_letter and None in by_answer):
        raise Unfit("no_answer", f"{str([*letters, *answers][0])[:60]!r} is none of the options")
    found = [option for option in (*by_letter, *by_answer) if option is not None]
    if not found:
        raise Unfit("no_answer", "no option is named as the right one")
    if found[0][1] != found[-1][1]:
        raise Unfit("bad_field", f"the letter says {found[0][0]}, the text is that of {found[-1][0]}")
    return found[0]


def _named_option(
    value: Any, choices: Sequence[tuple[str, str]], first: int | None, is_index: bool
) -> tuple[str, str] | None:
    if isinstance(value, list) and len(value) == 1:
        return _named_option(value[0], choices, first, is_index)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unfit("bad_field", f"the right option is a {type(value).__name__}")
    stated, number = said(value), number_of(value)
    if number is not None and (is_index or first is not None):
        place = -1 if first is None else number - first
        return choices[place] if 0 <= place < len(choices) and choices[place][1] else None
    same = [choice for choice in choices if choice[1] and choice[1] == stated]
    if len(same) == 1 and not is_index:
        return same[0]
    match = re.match(r"\(?([A-Za-z])\s*(?:[.:)]+\s*|$)", stated)
    letter, text = (match[1].upper(), stated[match.end() :]) if match else (_letter_of_name(stated), "")
    named = [choice for choice in choices if choice[0] == letter and choice[1] and text in ("", choice[1])]
    if named:
        return named[0]
    folded = [choice for choice in choices if choice[1] and choice[1].casefold() == stated.casefold()]
    return folded[0] if len({text for _, text in folded}) == 1 else None
