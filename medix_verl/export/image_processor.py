"""The image processor's settings, in the two ways in which transformers has written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix_verl.export.json_files import read_json_if_there

IGNORED: Final = frozenset({"processor_class", "default_to_square", "disable_grouping", "device", "return_tensors"})
"""These change no pixel of a picture."""
DEFAULTS: Final = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "data_format": "channels_first",
    "do_center_crop": False,
    "do_pad": False,
}
"""Of the Qwen image processors, for files that say nothing about them: transformers 4 wrote fewer settings than 5."""


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
    if not wanted:
        return
    wanted = DEFAULTS | wanted
    for settings in filter(None, (image_settings(folder), older)):
        found = DEFAULTS | settings
        for name in sorted((wanted.keys() | found.keys()) - IGNORED):
            if found.get(name) != wanted.get(name):
                raise ExportError(
                    f"the base model's {name} in the image processor, {wanted.get(name)}",
                    str(found.get(name)),
                    "restore the base model's processor in the checkpoint, or name the right --base",
                )


def _by_older_names(settings: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in settings.items() if value is not None}
    size = settings.get("size")
    if isinstance(size, dict) and size.keys() == {"shortest_edge", "longest_edge"}:
        # The older names win: a file that has both was written by a release that read these.
        settings = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]} | settings
        del settings["size"]
    if isinstance(kind := settings.get("image_processor_type"), str):
        # Three ways to compute the same.
        settings["image_processor_type"] = kind.removesuffix("Fast").removesuffix("Pil")
    return settings
