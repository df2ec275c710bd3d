"""MRI_SCAN: squares of a shoulder and of an abdomen picture; train and test squares lie in different halves."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_prep.sample_set.assets import read_dicom
from data_prep.sample_set.flat import FlatSource, cut_pictures
from data_prep.sample_set.picture import Fact, Picture
from data_prep.sample_set.pixels import auto_window

SOURCES = (
    FlatSource(
        "body_mri",
        "MRI_SCAN",
        "pydicom-data",
        "data_store/data/MR2_UNCR.dcm",
        "real MRI of a shoulder, T1-weighted spin echo",
        (Fact("modality", "magnetic resonance imaging"), Fact("region", "shoulder")),
        {"train": (110, 100, 590, 900), "test": (620, 100, 1010, 900)},
        (300, 380),
        {"train": 24, "test": 5},
    ),
    FlatSource(
        "body_mri",
        "MRI_SCAN",
        "pydicom-data",
        "data_store/data/MR-SIEMENS-DICOM-WithOverlays.dcm",
        "real MRI of an abdomen, T1-weighted with fat suppression",
        (Fact("modality", "magnetic resonance imaging"), Fact("region", "abdomen")),
        {"train": (10, 85, 235, 365), "test": (250, 85, 450, 365)},
        (140, 195),
        {"train": 24, "test": 5},
    ),
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Squares of both pictures."""
    for source in SOURCES:
        image = auto_window(read_dicom(source.package, source.file).pixel_array)
        yield from cut_pictures(source, image, rng)
