"""MRI_SCAN: tiles of two echo-planar brain mosaics, one slice each.

Held-out slices come in slabs of the stack with one slice left out on either side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from examples.sample_data.build.assets import read_dicom
from examples.sample_data.build.picture import Cut, Fact, Picture
from examples.sample_data.build.pixels import auto_window, picture_pixels
from examples.sample_data.build.slabs import slab_split

PACKAGE = "heudiconv"
MOSAICS = (
    ("heudiconv/tests/data/axasc35.dcm", 6, 35, "echo-planar functional series"),
    ("heudiconv/tests/data/b0dwiForFmap/b0dwi_for_fmap+00001.dcm", 9, 74, "echo-planar diffusion series"),
)
"""File, tiles in a row, slices used, what it is. The first and last slices show little and are left out."""
FACTS = (
    Fact("modality", "magnetic resonance imaging"),
    Fact("region", "brain"),
    Fact("sequence", "echo-planar"),
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Every usable tile of the mosaics."""
    for file, columns, depth, name in MOSAICS:
        mosaic = auto_window(read_dicom(PACKAGE, file).pixel_array)
        side = mosaic.shape[1] // columns
        for z, split in slab_split(depth - 4, period=14, held_out=4, gap=1, low=4):
            x, y = z % columns * side, z // columns * side
            cut = Cut(PACKAGE, file, "xy", (x, y), (x + side, y + side))
            pixels = picture_pixels(mosaic[y : y + side, x : x + side])
            yield Picture("echo_planar_mri", split, "MRI_SCAN", pixels, cut, f"real MRI, {name}, slice {z}", FACTS)
