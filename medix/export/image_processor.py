"""The image processor's settings, in the two ways in which transformers has written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix.export.json_files import read_json_if_there

COMPARED: Final = (
    "min_pixels",
    "max_pixels",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
    "image_mean",
    "image_std",
)


def image_settings(folder: Path) -> dict[str, Any]:
    """Settings of the processor in a folder, by their older names; empty where there is none.

    processor_config.json (transformers 5) counts before preprocessor_config.json, as it does in transformers.
    """
    settings = read_json_if_there(folder, "processor_config.json").get("image_processor")
    if not isinstance(settings, dict) or not settings:
        settings = read_json_if_there(folder, "preprocessor_config.json")
    return _by_older_names(settings)


def refuse_other_images(folder: Path, base: Path) -> None:
    """Hold every image processor file of a folder against the base model's.

    Raises:
        ExportError: a picture would be cut or normalised in another way than in the base model.
    """
    wanted = image_settings(base)
    older = _by_older_names(read_json_if_there(folder, "preprocessor_config.json"))
    for found in (image_settings(folder), older):
        for name in COMPARED:
            if name in wanted and name in found and found[name] != wanted[name]:
                raise ExportError(
                    f"the base model's {name} in the image processor, {wanted[name]}",
                    str(found[name]),
                    "restore the base model's processor in the checkpoint, or name the right --base",
                )


def _by_older_names(settings: dict[str, Any]) -> dict[str, Any]:
    size = settings.get("size")
    pixels = {}
    if isinstance(size, dict):
        names = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        pixels = {older: size[newer] for older, newer in names.items() if newer in size}
    # The older names win: a file that has both was written by a release that read these.
    return pixels | {name: value for name, value in settings.items() if value is not None}
