"""Errors survive a process boundary; the sixteen tags are what the paper lists."""

from __future__ import annotations

import copy
import pickle

import pytest

from medix import errors
from medix.errors import MedixError
from medix.modality import MODALITIES, is_modality

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedixError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_as_ray_does_it(kind: type[MedixError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a folder", "a file", "name a folder")))
    assert type(error) is kind
    assert (error.expected, error.found, error.fix) == ("a folder", "a file", "name a folder")
    assert str(error) == "expected a folder; found a file. Fix: name a folder"
    assert str(copy.copy(error)) == str(error)


def test_there_are_sixteen_tags_that_the_parser_can_read() -> None:
    assert len(MODALITIES) == 16
    assert all(tag.replace("_", "").isalpha() and tag.isupper() for tag in MODALITIES)
    assert len(set(MODALITIES.values())) == 16


@pytest.mark.parametrize("tag", ["ct_scan", "<CT_SCAN>", "CT SCAN", "", " CT_SCAN"])
def test_a_tag_is_exact(tag: str) -> None:
    assert not is_modality(tag)
