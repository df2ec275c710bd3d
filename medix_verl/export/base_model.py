"""The model that a run began with: its name, and its folder where it is on this machine. Never asks a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from medix.errors import ExportError
from medix_verl.export.card_text import shown_name
from medix_verl.export.contract import Checkpoint

ROOT: Final = Path(__file__).resolve().parents[2]
MODEL_PATH: Final = ("actor_rollout_ref", "model", "path")


@dataclass(frozen=True)
class BaseModel:
    """`name` as the run gave it; `folder` where it is here, else None and `why_not` says why."""

    name: str | None
    folder: Path | None
    why_not: str = ""

    @property
    def shown(self) -> str | None:
        """The name for others to read."""
        return None if self.name is None else shown_name(self.name)


def find_base(checkpoint: Checkpoint, override: Path | None) -> BaseModel:
    """The base model: `--base`, else what the run's resolved configuration names.

    Raises:
        ExportError: `--base` names no model folder.
    """
    if override is not None:
        if not (override / "config.json").is_file():
            raise ExportError(
                "a model folder at --base", f"no config.json in {override}", "name the base model's folder"
            )
        return BaseModel(_named(checkpoint) or str(override), override)
    name = _named(checkpoint)
    if name is None:
        return BaseModel(None, None, "the run's config.yaml, which would name it, is not there; --base was not given")
    for folder in _places(name, checkpoint):
        if (folder / "config.json").is_file():
            return BaseModel(name, folder)
    cached = _in_hub_cache(name)
    if cached is not None:
        return BaseModel(name, cached)
    why_not = f"{shown_name(name)} is neither a folder here nor in the local hub cache; name one by --base"
    return BaseModel(name, None, why_not)


def _named(checkpoint: Checkpoint) -> str | None:
    if checkpoint.run_dir is None or not (checkpoint.run_dir / "config.yaml").is_file():
        return None
    try:
        value = yaml.safe_load((checkpoint.run_dir / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    for key in MODEL_PATH:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value else None


def _places(name: str, checkpoint: Checkpoint) -> list[Path]:
    # A relative path was relative to where the recipe ran: the checkout, as a rule. A run may also have been moved.
    assert checkpoint.run_dir is not None
    moved = checkpoint.run_dir / Path(name).name
    return [Path(name).expanduser(), ROOT / name, moved]


def _in_hub_cache(name: str) -> Path | None:
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return folder if (folder / "config.json").is_file() else None
