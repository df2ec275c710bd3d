"""ULTRASOUND: squares of four studies, free of burned-in text; train and test squares lie in different parts."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from examples.sample_data.build.assets import asset_path
from examples.sample_data.build.flat import FlatSource, cut_pictures
from examples.sample_data.build.picture import Fact, Picture

MODALITY = Fact("modality", "ultrasound")
SOURCES = (
    FlatSource(
        "ultrasound",
        "ULTRASOUND",
        "pydicom-data",
        "data_store/data/US1_UNCR.dcm",
        "real ultrasound of a lymph node, power Doppler",
        (MODALITY, Fact("technique", "power Doppler"), Fact("region", "lymph node")),
        {"train": ((40, 112, 200, 325), (365, 112, 590, 325)), "test": ((212, 112, 350, 325),)},
        (110, 136),
        {"train": 36, "test": 6},
    ),
    FlatSource(
        "ultrasound",
        "ULTRASOUND",
        "pydicom-data",
        "data_store/data/color-pl.dcm",
        "real transoesophageal echocardiogram, colour Doppler",
        (MODALITY, Fact("technique", "colour Doppler"), Fact("region", "heart")),
        {"train": ((60, 5, 128, 115),), "test": ((133, 5, 185, 115),)},
        (42, 52),
        {"train": 36, "test": 6},
    ),
    FlatSource(
        "ultrasound",
        "ULTRASOUND",
        "pydicom-data",
        "data_store/data/gdcm-US-ALOKA-16.dcm",
        "real ultrasound of a pelvis, greyscale",
        (MODALITY, Fact("technique", "greyscale")),
        {"train": ((75, 85, 325, 405),), "test": ((350, 85, 625, 405),)},
        (180, 240),
        {"train": 36, "test": 5},
    ),
)
ECHO = FlatSource(
    "ultrasound",
    "ULTRASOUND",
    "pydicom-data",
    "data_store/data/color3d_jpeg_baseline.dcm",
    "real echocardiogram, greyscale",
    (MODALITY, Fact("technique", "greyscale"), Fact("region", "heart")),
    {"train": ((120, 80, 310, 400),), "test": ((325, 80, 520, 400),)},
    (150, 185),
    {"train": 2, "test": 1},
)
ECHO_FRAMES = range(4, 120, 6)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Squares of three still pictures and of some frames of an echocardiogram."""
    for source in SOURCES:
        yield from cut_pictures(source, brighter(rgb(source, 0)), rng)
    for frame in ECHO_FRAMES:
        source = replace(ECHO, provenance=f"{ECHO.provenance}, frame {frame}")
        for picture in cut_pictures(source, brighter(rgb(ECHO, frame)), rng):
            cut = replace(picture.cut, axes="xyt", low=(*picture.cut.low, frame), high=(*picture.cut.high, frame + 1))
            yield replace(picture, cut=cut)


def brighter(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gamma 0.6: ultrasound pictures are made for dark rooms."""
    return np.asarray(255 * (pixels / 255.0) ** 0.6, dtype=np.uint8)


def rgb(source: FlatSource, frame: int) -> NDArray[np.uint8]:
    """[h, w, 3] pixels of one frame, colours converted and palettes applied."""
    pydicom, pixels = importlib.import_module("pydicom"), importlib.import_module("pydicom.pixels")
    data = pydicom.dcmread(asset_path(source.package, source.file))
    if data.PhotometricInterpretation == "PALETTE COLOR":
        coloured = pixels.apply_color_lut(data.pixel_array, data)
        return np.asarray(coloured >> 8 if coloured.dtype == np.uint16 else coloured, dtype=np.uint8)
    frames = pixels.pixel_array(data, index=frame) if int(data.get("NumberOfFrames", 1)) > 1 else data.pixel_array
    return np.asarray(frames, dtype=np.uint8)
