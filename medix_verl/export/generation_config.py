"""generation_config.json: every token that ends a turn in the base model ends one in the export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix_verl.export.json_files import read_json_if_there
from medix_verl.export.token_files import TokenFiles

NAME: Final = "generation_config.json"
MARKS: Final = frozenset({"transformers_version", "_from_model_config"})
"""Who wrote the file, not how to generate."""
TURN_END: Final = "<|im_end|>"


def settle_generation_config(folder: Path, base: Path | None, tokens: TokenFiles) -> dict[str, Any]:
    """See to it that the folder generates, and ends turns, as the base model does; what was found.

    Merging tools have written defaults over this file, and generation then ran past the end of a turn or lost its
    temperature. So where the base model is known, its file counts.

    Raises:
        ExportError: a token that ends a turn is not among those that end generation.
    """
    record: dict[str, Any] = {}
    if base is not None and (base / NAME).is_file() and (other := _differing(folder, base)):
        record["generation_config"] = f"the base model's; the checkpoint's has other {', '.join(other)}"
        shutil.copyfile(base / NAME, folder / NAME)
    ours = stop_ids(folder)
    if not ours:
        raise ExportError(
            "a generation_config.json that names the tokens which end a turn",
            "none in the checkpoint nor beside the base model",
            "name the base model's folder: --base FOLDER",
        )
    ends = {tokens.named.get("eos_token", "")} | ({TURN_END} & tokens.special_in_template)
    for token in sorted(ends - {""}):
        if tokens.ids.get(token) not in ours:
            raise ExportError(
                f"{token} (id {tokens.ids.get(token)}) among the tokens that end generation",
                f"{ours} in {NAME}: the model would never stop",
                "name the base model's folder: --base FOLDER",
            )
    return record | {"end_of_turn_ids": ours}


def _differing(folder: Path, base: Path) -> list[str]:
    """Names of the settings that differ, or that one of the two lacks."""
    ours, theirs = (read_json_if_there(place, NAME) for place in (folder, base))
    other = {name for name in {*ours, *theirs} - MARKS if ours.get(name) != theirs.get(name)}
    # The order of these ids says nothing.
    return sorted(other - ({"eos_token_id"} if stop_ids(folder) == stop_ids(base) else set()))


def stop_ids(folder: Path) -> list[int]:
    """The ids in a folder's generation config, sorted; empty where it names none."""
    value = read_json_if_there(folder, NAME).get("eos_token_id")
    listed = value if isinstance(value, list) else [value]
    return sorted({number for number in listed if isinstance(number, int)})
