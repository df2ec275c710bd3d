"""The image families: name -> function that yields its pictures. One file each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from examples.sample_data.build.families import (
    abdomen_mri,
    angiography,
    bone_scan,
    brain_mri,
    ct_chest,
    ecg,
    echo_planar_mri,
    fundus,
    mammography,
    microscopy,
    ultrasound,
    x_ray,
)
from examples.sample_data.build.picture import Picture

FAMILIES: dict[str, Callable[[random.Random], Iterator[Picture]]] = {
    "ct_chest": ct_chest.pictures,
    "brain_mri": brain_mri.pictures,
    "echo_planar_mri": echo_planar_mri.pictures,
    "abdomen_mri": abdomen_mri.pictures,
    "x_ray": x_ray.pictures,
    "mammography": mammography.pictures,
    "ultrasound": ultrasound.pictures,
    "microscopy": microscopy.pictures,
    "fundus": fundus.pictures,
    "angiography": angiography.pictures,
    "bone_scan": bone_scan.pictures,
    "ecg": ecg.pictures,
}
