"""MRI_SCAN: axial slices of the MNI average brain (T1-weighted) and of its tissue maps.

Held-out slices come in slabs, four slices (4 mm) away from any that is trained on, the same slabs in the three files.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.sample_set.assets import read_volume
from data_prep.sample_set.picture import Cut, Fact, Picture
from data_prep.sample_set.pixels import picture_pixels
from data_prep.sample_set.slabs import slab_split

PACKAGE = "nilearn"
FILES = {
    name: f"nilearn/datasets/data/mni_icbm152_{code}_tal_nlin_sym_09a_converted.nii.gz"
    for name, code in (("T1-weighted", "t1"), ("grey matter map", "gm"), ("white matter map", "wm"))
}
LOWEST, HIGHEST = 40, 150
"""Slices (1 mm) between which the cerebrum fills the picture."""


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Whole slices of the three volumes, and single hemispheres of the T1-weighted one."""
    for name, file in FILES.items():
        volume = read_volume(PACKAGE, file)
        for z, split in slab_split(HIGHEST, period=36, held_out=8, gap=4, low=LOWEST):
            if (z + len(name)) % 2:
                continue
            shown = np.rot90(volume[:, :, z])
            facts: tuple[Fact, ...] = (Fact("sequence", name),)
            if name == "T1-weighted":
                facts = (*facts, Fact("modality", "magnetic resonance imaging"), Fact("region", "brain"))
                yield _hemisphere(shown, file, z, split, rng)
            note = "average of 152 brains" if name == "T1-weighted" else "synthetic: a map computed from 152 brains"
            margin = rng.randint(0, 14)
            inside = shown[margin : shown.shape[0] - margin, margin : shown.shape[1] - margin]
            cut = Cut(
                PACKAGE,
                file,
                "xyz",
                (margin, margin, z),
                (volume.shape[0] - margin, volume.shape[1] - margin, z + 1),
            )
            provenance = f"real MRI, MNI ICBM152 {name}, {note}, axial slice {z}"
            yield Picture("brain_mri", split, "MRI_SCAN", picture_pixels(inside), cut, provenance, facts)


def _hemisphere(shown: NDArray[Any], file: str, z: int, split: str, rng: random.Random) -> Picture:
    """One hemisphere in radiological display: the right one has the midline on the right edge of the picture."""
    side = rng.choice(("left", "right"))
    half = shown.shape[1] // 2
    low, high = (0, half) if side == "right" else (half + 1, shown.shape[1])
    cut = Cut(PACKAGE, file, "xyz", (low, 0, z), (high, shown.shape[0], z + 1))
    provenance = f"real MRI, MNI ICBM152 T1-weighted, average of 152 brains, axial slice {z}, {side} hemisphere"
    pixels = picture_pixels(shown[:, low:high])
    return Picture("brain_mri", split, "MRI_SCAN", pixels, cut, provenance, (Fact("hemisphere", side),))
