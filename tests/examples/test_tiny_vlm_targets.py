"""The texts that the tiny model is warm-started on, and the pieces of its tokenizer. No model is built here."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from examples.tiny_vlm.tokenizer import structure_tokens
from examples.tiny_vlm.warm_start import HABITS, VAGUE_ANSWER, careful_target, careless_target, habit_of
from medix.modality import MODALITIES
from medix.prompts import load_prompt, render_prompt
from medix.response import parse_response
from medix.sample import Sample


def sample(question: str, modality: str | None = "CT_SCAN") -> Sample:
    return Sample("1", "s", "train", question, "left lung", (b"x",) if modality else (), modality)


def question_with(habit: str) -> str:
    return next(text for text in (f"Question {number}?" for number in range(500)) if habit_of(text) == habit)


@pytest.mark.parametrize("modality", ["CT_SCAN", None])
def test_a_careful_target_is_well_formed_and_right(modality: str | None) -> None:
    parsed = parse_response(careful_target(sample("Where?", modality), random.Random(0)))
    assert (parsed.problems, parsed.answer, parsed.modality) == ((), "left lung", modality or "OTHER")


@pytest.mark.parametrize(
    ("habit", "problems", "answer", "right_tag"),
    [
        ("vague", (), VAGUE_ANSWER, True),
        ("no_reasoning", ("missing_modality", "missing_thinking"), "left lung", False),
        ("wrong_tag", (), "left lung", False),
        ("none", (), "left lung", True),
    ],
)
@pytest.mark.parametrize("modality", ["CT_SCAN", "OTHER", None])
def test_each_habit_spoils_one_thing(
    habit: str, problems: tuple[str, ...], answer: str, right_tag: bool, modality: str | None
) -> None:
    parsed = parse_response(careless_target(sample(question_with(habit), modality), random.Random(0)))
    assert (parsed.problems, parsed.answer) == (problems, answer)
    assert (parsed.modality == (modality or "OTHER")) == right_tag


def test_habits_are_shared_out_as_listed_and_the_same_in_every_process() -> None:
    counts = Counter(habit_of(f"Which organ is this, case {number}?") for number in range(4000))
    for habit in set(HABITS):
        assert counts[habit] / 4000 == pytest.approx(HABITS.count(habit) / len(HABITS), abs=0.03)
    # CRC-32 of the three wordings.
    wanted = {"Where?": 0xFC6AACB0, "Which organ?": 0x85C21941, "Is there a fracture?": 0x7D748A8F}
    assert {text: habit_of(text) for text in wanted} == {text: HABITS[crc % 20] for text, crc in wanted.items()}


def test_prompt_and_tags_are_single_pieces() -> None:
    pieces = structure_tokens(load_prompt())
    assert {f"<{tag}>" for tag in MODALITIES} <= set(pieces)
    assert {"<thinking>", "</thinking>", "<answer>", "</answer>"} <= set(pieces)
    rendered = render_prompt(load_prompt(), "Where?", 0)
    wording = [piece for piece in pieces if not piece.startswith("<")]
    assert all(piece in rendered for piece in wording)
    assert len(set(pieces)) == len(pieces)
