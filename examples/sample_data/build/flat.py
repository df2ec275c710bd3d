"""Pictures cut as boxes from a flat image whose train and test areas lie apart."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.sample_data.build.picture import Cut, Fact, Picture
from examples.sample_data.build.pixels import Box, picture_pixels, random_boxes


@dataclass(frozen=True)
class FlatSource:
    """An image file and how it is cut."""

    family: str
    modality: str
    package: str
    file: str
    provenance: str
    facts: tuple[Fact, ...]
    areas: dict[str, tuple[Box, ...]]
    """Split -> areas, taken in turn; those of one split do not touch those of the other."""
    sides: tuple[int, int]
    """Smallest and largest width of a cut, in source pixels."""
    counts: dict[str, int]
    """Split -> number of pictures."""
    min_contrast: float = 12.0
    """Standard deviation in grey levels under which a cut shows nothing and is drawn again."""
    max_brightness: float = 255.0
    """Mean grey level above which a cut is mostly empty glass and is drawn again."""
    aspect: float = 1.0
    """Height of a cut over its width."""
    mirrored: bool = False
    """Whether every other cut is mirrored left to right; its provenance says so."""


def cut_pictures(source: FlatSource, image: NDArray[np.uint8], rng: random.Random) -> Iterator[Picture]:
    """Pictures of both splits from `image` ([h, w] or [h, w, 3])."""
    for split, areas in source.areas.items():
        made = 0
        for x0, y0, x1, y1 in random_boxes(areas, source.sides, 50 * source.counts[split], rng, source.aspect):
            if made == source.counts[split]:
                break
            cut = image[y0:y1, x0:x1]
            if float(cut.std()) < source.min_contrast or float(cut.mean()) > source.max_brightness:
                continue
            made += 1
            turned = source.mirrored and made % 2 == 0
            yield Picture(
                source.family,
                split,
                source.modality,
                picture_pixels(cut[:, ::-1] if turned else cut),
                Cut(source.package, source.file, "xy", (x0, y0), (x1, y1)),
                source.provenance + (", mirrored left to right" if turned else ""),
                source.facts,
            )
