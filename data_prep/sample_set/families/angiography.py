"""ANGIOGRAPHY: squares of a time-of-flight MR angiogram; train and test squares lie in different parts."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_prep.sample_set.assets import read_dicom
from data_prep.sample_set.flat import FlatSource, cut_pictures
from data_prep.sample_set.picture import Fact, Picture
from data_prep.sample_set.pixels import window

SOURCE = FlatSource(
    "angiography",
    "ANGIOGRAPHY",
    "nibabel",
    "nibabel/nicom/tests/data/slicethickness_empty_string.dcm",
    "real time-of-flight MR angiogram, maximum intensity projection",
    (Fact("modality", "angiography"), Fact("sequence", "time-of-flight")),
    {"train": (20, 154, 180, 230), "test": (186, 154, 300, 230)},
    (60, 75),
    {"train": 30, "test": 6},
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Squares of the projected band."""
    pixels = read_dicom(SOURCE.package, SOURCE.file).pixel_array
    yield from cut_pictures(SOURCE, window(pixels, 0, float(pixels.max()) * 0.6), rng)
