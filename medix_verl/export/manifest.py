"""`manifest.json` of a checkpoint: written when it is saved, so that an export can prove that nothing changed since.

Without it a shard of another step that lost its way into the folder cannot always be told from the right one. Writing
reads a few kilobytes a shard (its table of contents holds a CRC32 of every tensor), so a save is not held up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from medix.errors import ExportError
from medix_verl.export.archive import Archive

MANIFEST = "manifest.json"
_SHARD = re.compile(r"(model|optim|extra_state)_world_size_\d+_rank_\d+\.pt")
_SMALL = ("fsdp_config.json", "lora_train_meta.json", "huggingface/config.json")


def write_manifest(actor: Path, step: int | None = None) -> Path:
    """Write the manifest of an `actor` folder that every rank has finished saving; imports no torch.

    Args:
        step: the global step; None reads it from the folder's name.
    """
    if step is None and actor.parent.name.startswith("global_step_"):
        step = int(actor.parent.name.removeprefix("global_step_"))
    files = {path.name: shard_entry(path) for path in sorted(actor.iterdir()) if _SHARD.fullmatch(path.name)}
    files.update({name: _small_entry(actor / name) for name in _SMALL if (actor / name).is_file()})
    target = actor / MANIFEST
    part = actor / f"{MANIFEST}.part-{os.getpid()}"
    part.write_text(json.dumps({"format": 1, "step": step, "files": files}, indent=1), encoding="utf-8")
    os.replace(part, target)
    return target


def shard_entry(path: Path) -> dict[str, Any]:
    """Size and digest of a shard."""
    archive = Archive(path)
    return {"bytes": archive.size, "digest": archive.digest}


def _small_entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "digest": hashlib.sha256(data).hexdigest()}


def read_manifest(actor: Path) -> dict[str, Any] | None:
    """The manifest, None where the run wrote none."""
    path = actor / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        entries = [(int(entry["bytes"]), str(entry["digest"])) for entry in manifest["files"].values()]
        if manifest["format"] == 1 and entries:
            return dict(manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ExportError(f"a manifest of format 1 in {path}", "something else", "save the checkpoint again")


def refuse_other_files(actor: Path, manifest: dict[str, Any], step: int | None) -> None:
    """Hold the model's shards and small files against the manifest.

    Raises:
        ExportError: one was changed, exchanged or removed since the save, or the folder was given another step's name.
    """
    if step is not None and manifest.get("step") not in (None, step):
        found = f"the files of step {manifest['step']} in {actor.parent}"
        raise ExportError(f"the checkpoint of step {step}", found, "name the folder after its step again")
    shards = {path.name for path in actor.iterdir() if path.name.startswith("model_") and _SHARD.fullmatch(path.name)}
    if unlisted := sorted(shards - manifest["files"].keys()):
        found = f"no entry for {unlisted[0]} ({len(unlisted)} shards without one)"
        raise ExportError(f"every shard of the model in {MANIFEST}", found, "restore the manifest that this save wrote")
    for name, noted in manifest["files"].items():
        if not name.startswith("model_") and name not in _SMALL:
            continue
        path = actor / name
        if not path.is_file():
            raise ExportError(f"{name}, which was saved", f"none in {actor}", "restore it from where it was copied")
        now = shard_entry(path) if name.endswith(".pt") else _small_entry(path)
        if now != noted:
            raise ExportError(
                f"{name} as it was saved at step {manifest.get('step')} ({noted['bytes']} bytes)",
                f"other contents ({now['bytes']} bytes): a stale file of another step, or one that was changed",
                "restore the file that this save wrote",
            )
