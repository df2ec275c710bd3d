"""Letters read from answers to choice questions: certain ones, and those left to a judge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.judging.rules import decide, match_letter
from evaluation.run_folder import Row
from tests.evaluation.conftest import row

CHOICES = ("pneumonia", "pleural effusion", "effusion", "no finding")


@pytest.mark.parametrize(
    ("name", "answer", "letter"),
    [
        ("letter", "B", "B"),
        ("lower case letter", "b", "B"),
        ("letter in brackets", "(B).", "B"),
        ("letter in bold", "**C**", "C"),
        ("letter and its text", "B. pleural effusion", "B"),
        ("letter and its text in other case", "B) Pleural effusion.", "B"),
        ("letter, text, explanation", "B. Pleural effusion.\n\nNot pneumonia, since the angle is blunted.", "B"),
        ("text of an option", "Pneumonia", "A"),
        ("stated", "The answer is B.", "B"),
        ("stated with a reason", "The answer is B because the angle is blunted", "B"),
        ("boxed", r"So \boxed{D}", "D"),
        ("boxed text", r"\boxed{\text{C}}", "C"),
        ("sentence with one option", "This is pneumonia.", "A"),
        ("the longer of two nested options", "It shows pleural effusion", "B"),
        ("letter out of range", "F", None),
        ("letter with another option's text", "A. pleural effusion", None),
        ("two letters stated", "The answer is A. No, the answer is B.", None),
        ("denied", "The answer is not B.", None),
        ("two options named", "pneumonia or no finding", None),
        ("article, not a letter", "The answer is A fracture of the femur", None),
        ("lower case article", "the answer is a fracture", None),
        (
            "in passing",
            "In the past pneumonia was seen here but today the film shows something that I can not name",
            None,
        ),
        ("empty", "", None),
        ("denied option", "There is no pneumonia", None),
        ("denied by a word in front", "no pneumonia", None),
        ("denied by can not", "cannot be pneumonia", None),
        ("denied by without", "without pneumonia", None),
        ("denied behind", "pneumonia excluded", None),
        ("denied in another language", "kein pneumonia", None),
        ("letter and text taken back", "A. pneumonia is wrong", None),
        ("letter and text taken back later", "A. pneumonia. This is wrong", None),
        ("all letters", "Answer: A, B, C, D", None),
        ("two letters", "A and B", None),
        ("a question to itself", "Answer: A? No, B", None),
        ("stated letter with another option's text", "Answer: B. pneumonia", None),
        ("stated letter, another denied", "Answer: B, not A", None),
        ("stated letter with its text", "The answer is B: pleural effusion", "B"),
        ("last line, after doubts", "It is not A.\nSo it may be C or B.\n\nAnswer: B", "B"),
    ],
)
def test_match_letter(name, answer, letter):
    assert match_letter(answer, CHOICES) == letter, name


@pytest.mark.parametrize(
    ("name", "choices", "answer", "letter"),
    [
        ("text that looks like a letter", ("C", "K", "D", "E"), "K", "B"),
        ("letter and text name two options", ("C", "K", "D", "E"), "D", None),
        ("letter and text name one option", ("A", "B", "O", "AB"), "A", "A"),
    ],
)
def test_options_that_look_like_letters(name, choices, answer, letter):
    assert match_letter(answer, choices) == letter, name


@pytest.mark.parametrize(
    ("answer", "letters"),
    [("A, C", "AC"), ("C and A", "AC"), ("AC", "AC"), ("The answers are A and C.", "AC"), ("A, B and C", None),
     ("A", "A")],
)  # fmt: skip
def test_several_right_letters(answer, letters):
    assert match_letter(answer, CHOICES, wanted=2) == letters


def said(response: str, reference: str, **changes: Any) -> Row:
    return Row(**row(response=response, reference=reference, **changes))


@pytest.mark.parametrize(
    ("name", "given", "how"),
    [
        ("the same words", said("**Liver**.", "liver"), "exact"),
        ("an alias", said("Hepar", "liver", aliases=("hepar",)), "exact"),
        ("a point in front is part of a number", said(".5 mg", "5 mg"), "judge"),
        ("a star that means something", said("T2", "T2*"), "judge"),
        ("a power", said("102 cells", "10\u00b2 cells"), "judge"),
        ("case of a unit", said("5 MV", "5 mV"), "judge"),
        ("other words", said("the liver", "liver"), "judge"),
        ("reasoning that never closes", said("<think>It may be the liver", "liver", finish="length"), "no_answer"),
        ("cut off in the open", said("liver", "liver", finish="length"), "judge"),
        ("an answer block before the cut", said("<answer>liver</answer> and", "liver", finish="length"), "exact"),
        ("nothing", said("  ", "liver"), "no_answer"),
        ("a report", said("Clear.", "Clear.", kind="report"), "judge"),
    ],
)
def test_decide(name, given, how):
    assert decide(given).how == how, name
    assert decide(given, by_rule=False).how in ("judge", "no_answer"), name


def test_equal_options_are_not_told_apart_by_text():
    assert match_letter("same", ("same", "same", "other")) is None


def test_units_and_signs_count():
    choices = ("5 mg", "5 µg", "-5 mg", "50 mg")
    assert match_letter("5 µg", choices) == "B"
    assert match_letter("-5 mg", choices) == "C"


@given(st.text(max_size=200))
def test_any_text_is_read_without_error(answer):
    assert match_letter(answer, CHOICES) in (None, "A", "B", "C", "D")


@given(st.sampled_from("ABCD"))
def test_a_stated_letter_is_never_another(letter):
    assert match_letter(f"Answer: {letter}", CHOICES) == letter
