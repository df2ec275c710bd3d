"""How a question enters a prompt: as many image slots as images, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix.errors import ConfigError
from medix.prompts import ESCAPED_IMAGE_SLOT, IMAGE_SLOT, load_prompt, render_prompt
from medix.sample import count_image_slots

TEMPLATE = "{images}Look.\nQuestion: {question}\nAnswer:"


def test_the_training_prompt_names_its_two_fields_once() -> None:
    text = load_prompt()
    assert text.count("{images}") == text.count("{question}") == 1


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (0, "Look.\nQuestion: Where?\nAnswer:"),
        (1, "<image>\nLook.\nQuestion: Where?\nAnswer:"),
        (3, "<image><image><image>\nLook.\nQuestion: Where?\nAnswer:"),
    ],
)
def test_as_many_slots_as_images(images: int, expected: str) -> None:
    assert render_prompt(TEMPLATE, " Where? ", images) == expected


def test_fields_may_stand_in_either_order() -> None:
    assert render_prompt("{question} | {images}", "Where?", 1) == "Where? | <image>\n"


@pytest.mark.parametrize("question", ["{images}", "{question}", "{images}{question}", "{0} {x} {{"])
def test_a_question_is_no_template(question: str) -> None:
    assert render_prompt(TEMPLATE, question, 0) == f"Look.\nQuestion: {question}\nAnswer:"


def test_a_literal_slot_in_a_question_stays_readable() -> None:
    assert render_prompt("{images}{question}", "What is <image>?", 0) == f"What is {ESCAPED_IMAGE_SLOT}?"


@pytest.mark.parametrize("slot", ["<video>", "<audio>"])
def test_the_other_slots_that_verl_fills_are_escaped_too(slot: str) -> None:
    # veRL 0.9.1 splits messages at all three, and stops in mid-epoch at one that the row has nothing for.
    assert slot not in render_prompt(TEMPLATE, f"What does {slot} mean?", 1)


tricky = st.lists(st.sampled_from(["<", "image", ">", IMAGE_SLOT, "{images}", "<im", "age>", " "]), max_size=12)


@given(st.one_of(st.text(), tricky.map("".join)), st.integers(0, 4))
def test_no_question_adds_or_removes_a_slot(question: str, images: int) -> None:
    message = {"role": "user", "content": render_prompt(TEMPLATE, question, images)}
    assert count_image_slots([message]) == images


@pytest.mark.parametrize(
    "text", ["{question}", "{images}", "{images}{images}{question}", "{images}{question}{question}", ""]
)
def test_a_prompt_file_with_a_wrong_number_of_fields_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match="exactly once"):
        load_prompt(path)


def test_a_missing_prompt_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.txt"):
        load_prompt(tmp_path / "absent.txt")
