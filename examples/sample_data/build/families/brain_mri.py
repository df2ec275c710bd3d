"""MRI_SCAN: axial slices of the MNI average brain, T1-weighted.

Held-out slices come in slabs, four slices (4 mm) away from any that is trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from examples.sample_data.build.assets import read_volume
from examples.sample_data.build.picture import Cut, Fact, Picture
from examples.sample_data.build.pixels import picture_pixels
from examples.sample_data.build.slabs import slab_split

PACKAGE = "nilearn"
FILE = "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
LOWEST, HIGHEST = 40, 148
"""Slices (1 mm) between which the brain fills the picture."""
FACTS = (
    Fact("modality", "magnetic resonance imaging"),
    Fact("region", "brain"),
    Fact("sequence", "T1-weighted"),
)


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Whole slices, slightly zoomed."""
    volume = read_volume(PACKAGE, FILE)
    width, height = volume.shape[:2]
    for z, split in slab_split(HIGHEST, period=36, held_out=8, gap=4, low=LOWEST):
        margin = rng.randint(4, 20)
        shown = np.rot90(volume[margin : width - margin, margin : height - margin, z])
        cut = Cut(PACKAGE, FILE, "xyz", (margin, margin, z), (width - margin, height - margin, z + 1))
        provenance = f"real MRI, MNI ICBM152 T1-weighted, average of 152 brains, axial slice {z}"
        yield Picture("brain_mri", split, "MRI_SCAN", picture_pixels(shown), cut, provenance, FACTS)
