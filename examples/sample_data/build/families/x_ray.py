"""X_RAY: parts of a chest and of a lower-leg radiograph; train and test parts lie in different parts."""

from __future__ import annotations

import random
from collections.abc import Iterator

from examples.sample_data.build.assets import read_dicom
from examples.sample_data.build.flat import FlatSource, cut_pictures
from examples.sample_data.build.picture import Fact, Picture
from examples.sample_data.build.pixels import auto_window

SOURCES = (
    FlatSource(
        "x_ray",
        "X_RAY",
        "pydicom-data",
        "data_store/data/RG1_UNCR.dcm",
        "real chest radiograph, postero-anterior",
        (Fact("modality", "X-ray"), Fact("region", "chest")),
        {"train": ((60, 100, 1780, 720), (60, 1180, 1780, 1780)), "test": ((60, 750, 1780, 1150),)},
        (860, 990),
        {"train": 50, "test": 8},
        aspect=0.4,
    ),
    FlatSource(
        "x_ray",
        "X_RAY",
        "pydicom-data",
        "data_store/data/RG3_UNCR.dcm",
        "real radiograph of a right lower leg, antero-posterior",
        (Fact("modality", "X-ray"), Fact("region", "lower leg")),
        {"train": ((480, 0, 1130, 520), (480, 1000, 1130, 1740)), "test": ((480, 540, 1130, 980),)},
        (380, 430),
        {"train": 50, "test": 8},
    ),
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Strips of the chest and squares of the leg, bone white. The files store them with bone black (MONOCHROME1)."""
    for source in SOURCES:
        image = 255 - auto_window(read_dicom(source.package, source.file).pixel_array)
        yield from cut_pictures(source, image, rng)
