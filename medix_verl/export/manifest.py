"""`manifest.json` of a checkpoint: written when it is saved, so that an export can tell that nothing changed since.

A shard of another step that lost its way into the folder has the right keys and shapes; only this file tells. The
trainer writes it: nothing heavy is imported here, and of each shard only its table of contents is read.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix.files import open_inside, read_inside, write_atomically

MANIFEST: Final = "manifest.json"
SHARD: Final = re.compile(r"(model|optim|extra_state)_world_size_([0-9]{1,6})_rank_([0-9]{1,6})\.pt")
_SMALL: Final = ("fsdp_config.json", "lora_train_meta.json", "huggingface/config.json")


def write_manifest(actor: Path, step: int | None = None) -> Path:
    """Write the manifest of an `actor` folder that every rank has finished saving.

    Args:
        step: the global step; None reads it from the folder's name.
    """
    if step is None and actor.parent.name.startswith("global_step_"):
        step = int(actor.parent.name.removeprefix("global_step_"))
    names = [path.name for path in sorted(actor.iterdir()) if SHARD.fullmatch(path.name)]
    names += [name for name in _SMALL if (actor / name).is_file()]
    content = {"format": 1, "step": step, "files": {name: _describe(actor, name) for name in names}}
    write_atomically(actor / MANIFEST, json.dumps(content, indent=1))
    return actor / MANIFEST


def _describe(actor: Path, name: str) -> dict[str, Any]:
    """Return size and digest of a file: of a shard over its table of contents, which has the CRC32 of every tensor."""
    with open_inside(actor, name) as file:
        data = file.read() if not name.endswith(".pt") else json.dumps(
            sorted((entry.filename.partition("/")[2], entry.file_size, entry.CRC) for entry in contents(actor, name))
        ).encode()  # fmt: skip
    return {"bytes": (actor / name).stat().st_size, "digest": hashlib.sha256(data).hexdigest()}


def contents(actor: Path, name: str) -> list[zipfile.ZipInfo]:
    """Return the table of contents of a shard."""
    try:
        with open_inside(actor, name) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        found = f"{actor / name} is a truncated file of {(actor / name).stat().st_size} bytes, or no shard at all."
        raise ExportError(found, "Copy it again from where it was saved, or export another step.") from None
    if not entries or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ExportError(f"{actor / name} is empty or compressed, as torch.save writes no file.", "Restore the shard.")
    return entries


def refuse_other_files(actor: Path, step: int | None) -> bool:
    """Hold the model's shards and the small files against the manifest; return whether the run wrote one."""
    if not (actor / MANIFEST).exists():
        return False
    manifest = read_inside(actor, MANIFEST)
    files, saved_step = manifest.get("files"), manifest.get("step")
    if manifest.get("format") != 1 or not isinstance(files, dict) or not files:
        raise ExportError(f"{actor / MANIFEST} is no manifest of format 1.", "Restore it, or export another step.")
    if step is not None and saved_step not in (None, step):
        raise ExportError(f"{actor.parent} holds the files of step {saved_step}.", "Give the folder its name again.")
    found = {path.name for path in actor.iterdir() if path.name.startswith("model_") and SHARD.fullmatch(path.name)}
    if unlisted := sorted(found - files.keys()):
        fix = "Remove that shard, or restore the right manifest."
        raise ExportError(f"{MANIFEST} of {actor} does not list {unlisted[0]}.", fix)
    for name in files:
        if name not in _SMALL and not (name.startswith("model_") and SHARD.fullmatch(name)):
            continue
        if not (actor / name).exists():
            raise ExportError(f"{name} was saved and is missing in {actor}.", "Copy it from where it was saved.")
        if _describe(actor, name) != files[name]:
            found_now = f"{name} is not as it was saved at step {saved_step}: a stale file of another step, or changed."
            raise ExportError(found_now, "Restore the file that this save wrote.")
    return True
