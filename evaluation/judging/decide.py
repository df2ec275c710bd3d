"""What is certain without a judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.judging.letters import match_letter, plain
from evaluation.prompting import read_response


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
    """The option that was read, for choice questions."""


def decide(row: Mapping[str, Any]) -> Decision:
    """Finding on a generation row that has a response. Pure: the same row gives the same finding."""
    answer, reasoning, problems = read_response(row["response"], row["prompt"])
    if answer is None:
        # An empty or malformed response is the model's doing, and is wrong.
        return Decision(None, reasoning, problems, False, "no_answer")
    if row["kind"] == "choice":
        letter = match_letter(answer, row["choices"])
        if letter is not None:
            return Decision(answer, reasoning, problems, letter == row["letter"], "letter", letter)
    elif row["kind"] != "report" and plain(answer) in {plain(text) for text in (row["reference"], *row["aliases"])}:
        return Decision(answer, reasoning, problems, True, "exact")
    return Decision(answer, reasoning, problems, None, "judge")
