"""What stands beside the weights, as in the base model or refused: tokenizer, processor, template, generation config.

Files come from the checkpoint's `huggingface/` folder; what is missing there comes from the base model, and nothing is
made up.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix_verl.export.base_model import BaseModel
from medix_verl.export.contract import Checkpoint
from medix_verl.export.generation_config import settle_generation_config
from medix_verl.export.image_processor import image_settings, refuse_other_images
from medix_verl.export.json_files import read_json, read_json_if_there
from medix_verl.export.token_files import TokenFiles, refuse_other_tokens, template_in

COPIED: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
"""All that is copied: data only. A folder's Python files never are."""


def complete_side_files(folder: Path, checkpoint: Checkpoint, base: BaseModel) -> dict[str, Any]:
    """Copy the side files into `folder`, hold them against the weights and the base model; what was found.

    Raises:
        ExportError: something is missing, damaged, asks for code, or differs from the base model.
    """
    source = checkpoint.base_files
    _refuse_code(source)
    if base.folder is not None:
        _refuse_code(base.folder)
    taken = _copy(folder, checkpoint, base.folder)
    config = read_json_if_there(folder, "config.json") or read_json(source / "config.json")
    tokens = TokenFiles.read(folder)
    tokens.refuse_unless_they_fit(embedding_rows(folder, config), config)
    if "vision_config" in config and not image_settings(folder):
        raise ExportError(
            "an image processor beside a model that sees images",
            f"neither processor_config.json nor preprocessor_config.json in {source}",
            "name the base model's folder: --base FOLDER",
        )
    record: dict[str, Any] = {
        "from_checkpoint": sorted(name for name, origin in taken.items() if origin == "checkpoint"),
        "from_base": sorted(name for name, origin in taken.items() if origin == "base"),
        "base": base.shown,
        "compared_with_base": base.folder is not None,
        "vocabulary": tokens.size,
        "chat_template_sha256": tokens.template_digest(),
    }
    if base.folder is None:
        record["unproved"] = f"as in the base model: {base.why_not}"
    else:
        refuse_other_tokens(tokens, TokenFiles.read(base.folder))
        refuse_other_images(folder, base.folder)
    return record | settle_generation_config(folder, base.folder, tokens)


def embedding_rows(folder: Path, config: dict[str, Any]) -> int:
    """Rows of the input embedding as written, or, where only an adapter was written, as the config says."""
    from safetensors import safe_open

    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                if key.endswith("embed_tokens.weight"):
                    return int(tensors.get_slice(key).get_shape()[0])
    text = config.get("text_config")
    return int((text if isinstance(text, dict) else config).get("vocab_size") or config.get("vocab_size") or 0)


def _copy(folder: Path, checkpoint: Checkpoint, base: Path | None) -> dict[str, str]:
    """File name -> `checkpoint` or `base`."""
    taken: dict[str, str] = {}
    places = {"checkpoint": checkpoint.base_files} | ({"base": base} if base is not None else {})
    roots = [checkpoint.actor, *([base, *_blobs(base)] if base is not None else [])]
    templates = [template_in(place).strip() for place in places.values()]
    for name in COPIED:
        origin = next((origin for origin, place in places.items() if (place / name).is_file()), None)
        if origin is None or (name == "chat_template.json" and "chat_template.jinja" in taken):
            continue
        # A processor finds its template in a file only. The base's would win over a trained one inside JSON.
        if name.startswith("chat_template") and origin == "base" and templates[0] and templates[0] != templates[1]:
            continue
        path = places[origin] / name
        _refuse_link_outside(path, roots)
        shutil.copyfile(path, folder / name)
        taken[name] = origin
    return taken


def _blobs(snapshot: Path) -> list[Path]:
    """Where the links of a hub cache's snapshots/REVISION lead: of a cache that is not this process's own too."""
    place = snapshot.resolve().parent
    blobs = place.parent / "blobs"
    return [blobs] if place.name == "snapshots" and not blobs.is_symlink() else []


def _refuse_link_outside(path: Path, roots: list[Path]) -> None:
    """A checkpoint of somebody else's could name any file of this machine by a link, and have it uploaded."""
    from huggingface_hub import constants

    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in (*roots, Path(constants.HF_HUB_CACHE))):
        found = f"{path}, a link to a file outside of it"
        raise ExportError("side files inside the checkpoint, the base model or the hub's cache", found, "copy it there")


def _refuse_code(folder: Path) -> None:
    for name in ("config.json", *(name for name in COPIED if name.endswith("config.json"))):
        if _names_code(read_json_if_there(folder, name)):
            raise ExportError(
                "a model that transformers knows",
                f"{name} of {folder} asks for code of its own (auto_map)",
                "no code of a folder is run here: use a model whose class transformers has",
            )


def _names_code(value: Any) -> bool:
    if isinstance(value, dict):
        return any((key == "auto_map" and inner) or _names_code(inner) for key, inner in value.items())
    return isinstance(value, list) and any(_names_code(inner) for inner in value)
