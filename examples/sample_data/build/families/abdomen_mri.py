"""MRI_SCAN: squares of an abdomen picture; train and test squares lie in different halves of the body."""

from __future__ import annotations

import random
from collections.abc import Iterator

from examples.sample_data.build.assets import read_dicom
from examples.sample_data.build.flat import FlatSource, cut_pictures
from examples.sample_data.build.picture import Fact, Picture
from examples.sample_data.build.pixels import auto_window

SOURCE = FlatSource(
    "abdomen_mri",
    "MRI_SCAN",
    "pydicom-data",
    "data_store/data/MR-SIEMENS-DICOM-WithOverlays.dcm",
    "real MRI of an abdomen, T1-weighted with fat suppression",
    (Fact("modality", "magnetic resonance imaging"), Fact("region", "abdomen")),
    {"train": ((10, 85, 235, 365),), "test": ((250, 85, 450, 365),)},
    (140, 195),
    {"train": 40, "test": 5},
    mirrored=True,
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Squares of the picture."""
    image = auto_window(read_dicom(SOURCE.package, SOURCE.file).pixel_array)
    yield from cut_pictures(SOURCE, image, rng)
