"""Errors survive a process boundary; the sixteen tags are what the paper lists."""

from __future__ import annotations

import copy
import pickle

import pytest

from medix import errors
from medix.errors import MedixError
from medix.modality import MODALITIES, is_modality
from medix.prompts import load_prompt
from medix.response import format_response, parse_response
from medix.sample import Sample
from reward_fns import AssumedScorers, ScoringInput, build_composite
from reward_fns.rows import make_row

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedixError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_as_ray_does_it(kind: type[MedixError]) -> None:
    error = pickle.loads(pickle.dumps(kind("This is a file.", "Name a folder.", expected="a folder", found="a file")))
    assert type(error) is kind
    assert (error.expected, error.found, error.fix) == ("a folder", "a file", "Name a folder.")
    assert str(error) == "This is a file. Fix: Name a folder."
    assert str(copy.copy(error)) == str(error)


def test_the_papers_sixteen_tags_are_there_and_the_parser_can_read_all() -> None:
    paper = (
        "X_RAY MICROSCOPY CLINICAL_PHOTOGRAPHY CT_SCAN GRAPHICS ANGIOGRAPHY PET_SCAN ULTRASOUND MRI_SCAN OTHER SPECT"
    )
    paper += " FUNDUS_PHOTOGRAPHY OCT_SCAN ENDOSCOPY MAMMOGRAPHY FLUOROSCOPY"
    assert set(paper.split()) <= set(MODALITIES)
    assert all(tag.replace("_", "").isalpha() and tag.isupper() for tag in MODALITIES)
    assert len(set(MODALITIES.values())) == len(MODALITIES)


async def test_a_new_tag_is_one_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODALITIES, "DERMOSCOPY", "dermoscopy")
    assert "<SPECT> <DERMOSCOPY>." in load_prompt()
    response = format_response("DERMOSCOPY", "t", "nevus")
    assert parse_response(response).well_formed
    item = ScoringInput(response, "nevus", "What is seen?", "DERMOSCOPY")
    assert (await build_composite({}, AssumedScorers()).score(item)).total == 1.0
    assert make_row({"response": response, "reference": "nevus", "modality": "dermoscopy"}, "a row").item.modality
    Sample("id", "source", "train", "What is seen?", "nevus", (b"",), "DERMOSCOPY")


@pytest.mark.parametrize("tag", ["ct_scan", "<CT_SCAN>", "CT SCAN", "", " CT_SCAN"])
def test_a_tag_is_exact(tag: str) -> None:
    assert not is_modality(tag)
