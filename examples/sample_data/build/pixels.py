"""Small pixel operations shared by the families."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from examples.sample_data.build.picture import SIDE

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1; half-open."""


def window(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Grey levels 0..255 of `values`, `low` black and `high` white."""
    scaled = np.clip((values.astype(np.float32) - low) / (high - low), 0, 1)
    return np.asarray(scaled * 255, dtype=np.uint8)


def auto_window(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Window from the 1st to the 99th percentile of the whole image."""
    low, high = np.percentile(values, [1, 99])
    return window(values, float(low), float(high))


def picture_pixels(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w] or [h, w, 3] -> [112, 112, 3], padded to a square with black and resized."""
    image = Image.fromarray(values).convert("RGB")
    side = max(image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def random_boxes(
    areas: Sequence[Box], widths: tuple[int, int], count: int, rng: random.Random, aspect: float = 1.0
) -> Iterator[Box]:
    """`count` boxes inside the `areas`, taken in turn; widths drawn from `widths` (pixels, both included)."""
    for turn in range(count):
        area, width = areas[turn % len(areas)], rng.randint(*widths)
        height = round(width * aspect)
        x = rng.randint(area[0], area[2] - width)
        y = rng.randint(area[1], area[3] - height)
        yield x, y, x + width, y + height
