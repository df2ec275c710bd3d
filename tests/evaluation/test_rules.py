"""Letters read from answers to choice questions: certain ones, and those left to a judge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.judging.rules import match_letter

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
    ],
)
def test_match_letter(name, answer, letter):
    assert match_letter(answer, CHOICES) == letter, name


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
