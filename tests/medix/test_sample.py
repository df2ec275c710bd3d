"""The sample: what it refuses, and rows whose keys and types do not depend on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix.errors import DataError
from medix.modality import MODALITIES
from medix.prompts import load_prompt
from medix.sample import ANSWER_KINDS, Sample, count_image_slots

FILLED: dict[str, Any] = {"id": "1", "source": "s", "split": "train", "question": "Where?", "reference": "left lung"}


@pytest.mark.parametrize("name", list(FILLED))
@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_blank_field_is_refused_by_name(name: str, blank: str) -> None:
    with pytest.raises(DataError, match=f"an empty {name}"):
        Sample(**{**FILLED, name: blank})


@pytest.mark.parametrize("change", [{"modality": "CT"}, {"modality": "<CT_SCAN>"}, {"answer_kind": "essay"}])
def test_a_wrong_tag_or_kind_is_refused_with_what_there_is(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"none of|Use one of"):
        Sample(**{**FILLED, **change})


def shape(value: Any) -> Any:
    """Keys and types of a row, with the items of a list seen as one."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return ("list", *{str(shape(item)) for item in value})
    return type(value)


text = st.text(min_size=1).filter(str.strip)
samples = st.builds(
    Sample,
    id=text,
    source=text,
    split=text,
    question=text,
    reference=text,
    images=st.lists(st.binary(max_size=4), max_size=3).map(tuple),
    modality=st.none() | st.sampled_from(sorted(MODALITIES)),
    answer_kind=st.sampled_from(ANSWER_KINDS),
    aliases=st.lists(text, max_size=3).map(tuple),
)
FULL = Sample(**FILLED, images=(b"x",), modality="X_RAY", aliases=("a",)).to_verl_row(0, "{images}{question}", 5)


@given(samples, st.integers(0, 10**6), st.integers(0, 4096))
def test_every_row_has_the_same_keys_and_types(sample: Sample, index: int, n_tokens: int) -> None:
    row = sample.to_verl_row(index, load_prompt(), n_tokens)
    wanted = shape(FULL)
    found = shape(row)
    if not sample.images:
        wanted["images"] = ("list",)
    if not sample.aliases:
        wanted["extra_info"]["aliases"] = ("list",)
    assert found == wanted
    assert count_image_slots(row["prompt"]) == len(row["images"])
    assert row["reward_model"]["ground_truth"] == sample.reference


def test_a_text_only_row_is_told_apart() -> None:
    row = Sample(**FILLED).to_verl_row(3, load_prompt(), 7)
    assert (row["ability"], row["images"], row["extra_info"]["modality"]) == ("medical_qa", [], "")
    assert (row["extra_info"]["index"], row["extra_info"]["n_tokens"]) == (3, 7)
    assert FULL["ability"] == "medical_vqa"
