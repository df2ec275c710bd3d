"""Writes ATTRIBUTION.md: package, version, licence and file for each image family."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from examples.sample_data.build.assets import ASSETS

INTRODUCTION = """# Where the pictures come from

Every picture here was cut from an image that a public Python package carries, and resized to 112x112. Nothing was
downloaded from anywhere else. The exact file and box of each picture stand in the field `cut` of its line; what else
was done to it (window, mirroring, turning, blanked letters) stands in `provenance`, where the drawn electrocardiograms
are called synthetic. Ultrasound is brightened (gamma 0.6), radiographs are shown with bone white, CT and MRI slices
with the patient's right on the left of the picture. Made by `python -m examples.sample_data.build`. Not for clinical use.

| family | pictures | package | package licence | file | origin and terms of the image |
|---|---|---|---|---|---|
"""


def attribution(lines: Iterable[dict[str, Any]]) -> str:
    """The text of ATTRIBUTION.md for the lines of both splits."""
    pictures: dict[tuple[str, str, str], set[str]] = {}
    for line in lines:
        if line["cut"]:
            key = (line["image_family"], line["cut"]["package"], line["cut"]["file"])
            pictures.setdefault(key, set()).add(line["images"][0])
    rows = []
    for (family, package, file), names in sorted(pictures.items()):
        asset = ASSETS[package]
        rows.append(
            f"| {family} | {len(names)} | {package}=={asset.version} | {asset.package_licence} | `{file}` "
            f"| {asset.data_note} |\n"
        )
    return INTRODUCTION + "".join(rows)
