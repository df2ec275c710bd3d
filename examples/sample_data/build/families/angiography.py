"""ANGIOGRAPHY: parts of a time-of-flight MR angiogram; train and test squares lie in different parts."""

from __future__ import annotations

import random
from collections.abc import Iterator

from examples.sample_data.build.assets import read_dicom
from examples.sample_data.build.flat import FlatSource, cut_pictures
from examples.sample_data.build.picture import Fact, Picture
from examples.sample_data.build.pixels import window

SOURCE = FlatSource(
    "angiography",
    "ANGIOGRAPHY",
    "nibabel",
    "nibabel/nicom/tests/data/slicethickness_empty_string.dcm",
    "real time-of-flight MR angiogram, maximum intensity projection",
    (Fact("modality", "angiography"), Fact("sequence", "time-of-flight")),
    {"train": ((60, 154, 180, 230),), "test": ((186, 154, 285, 230),)},
    (82, 98),
    {"train": 50, "test": 6},
    min_contrast=30.0,
    aspect=0.7,
    mirrored=True,
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Parts of the projected band, as high as wide by 0.7."""
    pixels = read_dicom(SOURCE.package, SOURCE.file).pixel_array
    yield from cut_pictures(SOURCE, window(pixels, 0, float(pixels.max()) * 0.6), rng)
