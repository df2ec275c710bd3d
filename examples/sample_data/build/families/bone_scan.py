"""OTHER: parts of a planar whole-body bone scintigram. None of the sixteen tags names planar scintigraphy."""

from __future__ import annotations

import random
from collections.abc import Iterator

from examples.sample_data.build.assets import read_dicom
from examples.sample_data.build.flat import FlatSource, cut_pictures
from examples.sample_data.build.picture import Fact, Picture
from examples.sample_data.build.pixels import window

SOURCE = FlatSource(
    "bone_scan",
    "OTHER",
    "pydicom-data",
    "data_store/data/JPEG2000_UNC.dcm",
    "real planar whole-body bone scintigram",
    (Fact("modality", "bone scintigraphy"), Fact("region", "skeleton")),
    {"train": ((0, 60, 126, 940),), "test": ((132, 60, 256, 940),)},
    (100, 122),
    {"train": 50, "test": 6},
    min_contrast=20.0,
    aspect=3.0,
    mirrored=True,
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Upright parts of one half of the body each."""
    pixels = read_dicom(SOURCE.package, SOURCE.file).pixel_array
    yield from cut_pictures(SOURCE, window(pixels, 0, float(pixels.max()) * 0.35), rng)
