"""FUNDUS_PHOTOGRAPHY: squares of a normal retina and of a detail with microaneurysms.

The microaneurysm picture holds two lesions: one in the part that is trained on, the other in the held-out part.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from examples.sample_data.build.assets import asset_path
from examples.sample_data.build.flat import FlatSource, cut_pictures
from examples.sample_data.build.picture import Fact, Picture

COMMON = (Fact("modality", "fundus photography"), Fact("region", "eye"))
SOURCES = (
    FlatSource(
        "fundus",
        "FUNDUS_PHOTOGRAPHY",
        "scikit-image",
        "skimage/data/retina.jpg",
        "real fundus photograph of a normal left eye",
        (*COMMON, Fact("fundus finding", "normal")),
        {"train": ((60, 100, 860, 1310),), "test": ((890, 200, 1360, 1210),)},
        (220, 440),
        {"train": 60, "test": 8},
    ),
    FlatSource(
        "fundus",
        "FUNDUS_PHOTOGRAPHY",
        "scikit-image",
        "skimage/data/microaneurysms.png",
        "real fundus photograph, green channel, detail with microaneurysms",
        (*COMMON, Fact("fundus finding", "microaneurysms")),
        {"train": ((0, 0, 54, 50),), "test": ((14, 54, 84, 102),)},
        (40, 48),
        {"train": 24, "test": 4},
        min_contrast=4.0,
    ),
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Squares of both photographs."""
    for source in SOURCES:
        image = np.asarray(Image.open(asset_path(source.package, source.file)).convert("RGB"))
        yield from cut_pictures(source, image, rng)
