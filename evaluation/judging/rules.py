"""What is certain without a judge: an option's letter or text, and an answer in the reference's own words.

A rule that is unsure leaves the answer to the judge. So the rules know what they can read, and take any other word for
a reason to be unsure: a denial in whatever language is a word that they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.item import LETTERS
from evaluation.prompting import read_response
from evaluation.run_folder import Row
from medix.same_answer import answer_key, same_answer

_PAIRS = ("**", "**"), ("*", "*"), ('"', '"'), ("'", "'"), ("`", "`"), ("(", ")"), ("[", "]"), ("$", "$")
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?([^{}]+)\}?\s*\}")
_LIST = r"[A-Z](?:(?:\s*[,;/&+]\s*|\s+and\s+|\s*,\s*and\s+)[A-Z])*"
_LETTERS_ALONE = re.compile(
    rf"(?:(?:the\s+)?(?:final\s+)?(?:answers?|options?|choices?)\s*[:=]?\s*)?({_LIST}|[A-Z]+|[a-z])", re.I
)
_LEADING = re.compile(r"[\"'`*(\[]*([A-Z])[\"'`*)\]]*\s*(?:[.:)\]]|-\s|\n)\s*(\S.*)", re.DOTALL)
_STATED = re.compile(
    r"\b(?i:answers?|options?|choices?)\b(?:\s+(?i:is|are|would be|should be|must be))?\s*[:=]?\s*"
    # A capital, and then an end: "the answer is A fracture" and "the answer is I think" name no option.
    rf"[\"'`*(\[]*({_LIST})[\"'`*)\]]*(?=\s*(?:[.;:!)]|,\s+[a-z]|$|\n|(?:because|since|as)\b))",
)
_DENIAL = re.compile(
    r"\b(?:no|not|\w+n['\u2019]t|never|neither|nor|cannot|except|rather than|instead|unlikely|incorrect|wrong|false"
    r"|excluded?|rule[sd]? out|without|but|however|although|unless|or)\b",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[^\s.,;:!]+")
_AROUND_AN_OPTION = (
    "a an and answer appears are as be best choice choose consistent correct describes diagnosis final finding "
    "findings has here i image is it likely most of option patient picture probable probably represents scan see "
    "seen show shown shows so suggestive suggests the there therefore this thus we with would"
)
"""Words that may stand around the text of an option and change nothing about it."""


@dataclass(frozen=True)
class Decision:
    """The rules' finding on a response."""

    answer: str | None
    reasoning: str
    problems: tuple[str, ...]
    correct: bool | None
    """None where a judge has to decide."""
    how: str
    """`no_answer`, `letter`, `exact`, or `judge`."""
    letter: str = ""
    """The option that was read, for choice questions; several letters where the question has several answers."""


def decide(row: Row, by_rule: bool = True) -> Decision:
    """Return the finding on a generation row that has a response. The same row always gives the same finding.

    Args:
        by_rule: False leaves every answer to the judge, as the released protocol does.
    """
    answer, reasoning, problems = read_response(row.response or "", row.prompt)
    if answer is None:
        # An empty or malformed response is the model's doing, and is wrong.
        return Decision(None, reasoning, problems, False, "no_answer")
    # Of a response that was cut off it is not known how it would have gone on, unless its answer block is whole.
    cut_off = row.finish == "length" and answer == (row.response or "").strip()
    if by_rule and not cut_off:
        if row.kind == "choice":
            letter = match_letter(answer, row.choices, len(row.letter))
            if letter is not None:
                return Decision(answer, reasoning, problems, letter == row.letter, "letter", letter)
        elif row.kind in ("open", "closed"):
            wordings = (row.reference, *row.aliases)
            if any(same_answer(unwrap(answer), unwrap(text)) for text in wordings):
                return Decision(answer, reasoning, problems, True, "exact")
    return Decision(answer, reasoning, problems, None, "judge")


def match_letter(answer: str, choices: Sequence[str], wanted: int = 1) -> str | None:
    """Return the option that `answer` names beyond doubt, or None: then a judge has to read it.

    Certain are: a letter alone; a letter with its own option's text; one stated letter ("the answer is B") with no
    other; the text of exactly one option, with nothing around it that could change it.

    Args:
        wanted: how many options are right. With several, the letters are returned in alphabetical order.

    Example:
        >>> options = ("pneumonia", "pneumothorax")
        >>> [match_letter(text, options) for text in ("B", "It shows pneumonia.", "There is no pneumothorax")]
        ['B', 'A', None]
    """
    letters = LETTERS[: len(choices)]
    texts = [answer_key(unwrap(choice)) for choice in choices]
    boxed = _BOXED.findall(answer)
    answer = unwrap(boxed[0] if len(boxed) == 1 else answer)
    whole = answer_key(answer)
    equal = [letter for letter, text in zip(letters, texts, strict=True) if text is not None and text == whole]
    alone = _read_list(answer, letters, wanted) if _LETTERS_ALONE.fullmatch(answer) else None
    if equal or alone:
        # Where options look like letters ("vitamin": A, B, C), letter and text may name different ones.
        named = {*equal, *([alone] if alone else [])}
        return named.pop() if len(named) == 1 and len(equal) <= 1 else None
    leading = _LEADING.fullmatch(answer)
    if leading and leading[1] in letters:
        return leading[1] if wanted == 1 and _own_text(leading[2], choices[letters.index(leading[1])]) else None
    return _stated(answer, choices, wanted) or (_named(answer, letters, choices) if wanted == 1 else None)


def _read_list(text: str, letters: str, wanted: int) -> str | None:
    """Return the letters of `B` or `A, C and D` or `ACD`, sorted; None if they are not options or too many."""
    match = _LETTERS_ALONE.fullmatch(text)
    found = re.sub(r"\band\b|[^A-Za-z]", "", match[1]).upper() if match else ""
    distinct = len(set(found)) == len(found)
    return (
        "".join(sorted(found)) if found and distinct and len(found) <= wanted and set(found) <= set(letters) else None
    )


def _own_text(rest: str, choice: str) -> bool:
    """Tell whether the text after a letter is its option, and what follows it does not take it back."""
    own, text = " ".join(choice.split()).casefold().strip(" ."), " ".join(rest.split()).casefold()
    if not own or not text.startswith(own):
        return False
    after = text[len(own) :]
    explanation = re.match(r"[\s*\"')\]]*(?:[.;:!,]|-|because\b|since\b|$)", after)
    taken_back = re.search(
        r"\b(?:wrong|incorrect|false|excluded|ruled out|unlikely|instead|actually|however|but)\b", after
    )
    return bool(explanation) and not taken_back and not _STATED.search(rest)


def _stated(answer: str, choices: Sequence[str], wanted: int) -> str | None:
    """Return what one statement ("the answer is B") says: alone on the last line, or in a text without a doubt.

    A denial or the text of another option is a doubt.
    """
    letters = LETTERS[: len(choices)]
    stated = {_read_list(found, letters, wanted) for found in _STATED.findall(answer)}
    if len(stated) != 1 or None in stated:
        return None
    letter = stated.pop() or ""
    if _LETTERS_ALONE.fullmatch(unwrap(answer.strip().splitlines()[-1])):
        return letter
    own = " ".join(_spaced(choice) for name, choice in zip(letters, choices, strict=True) if name in letter)
    whole = _spaced(answer)
    others = [_spaced(choice) for name, choice in zip(letters, choices, strict=True) if name not in letter]
    doubt = _DENIAL.search(answer) or any(other.strip() and other in whole and other not in own for other in others)
    return None if doubt else letter


def _named(answer: str, letters: str, choices: Sequence[str]) -> str | None:
    """Return the one option whose text stands in the answer, among words that change nothing."""
    whole = _spaced(answer)
    named = [
        letter
        for letter, text in zip(letters, map(_spaced, choices), strict=True)
        if text.strip() and text in whole and set(whole.replace(text, " ", 1).split()) <= set(_AROUND_AN_OPTION.split())
    ]
    return named[0] if len(named) == 1 else None


def _spaced(text: str) -> str:
    """Return the words of the text in lower case, with a blank around each."""
    return " ".join(["", *_WORDS.findall(text), ""]).casefold()


def unwrap(text: str) -> str:
    """Return the text without the quotes, brackets or emphasis around it and without a full stop at its end."""
    text = text.strip()
    for opening, closing in _PAIRS:
        inner = text[len(opening) : len(text) - len(closing)]
        if text.startswith(opening) and text.rstrip(".").endswith(closing) and len(text) > 2 * len(opening):
            inner = text.rstrip(".")[len(opening) : -len(closing)]
            if closing not in inner:
                return unwrap(inner)
    return re.sub(r"(?<=[\w)\]%])[.;,!]$", "", text).strip()
