"""Which checkpoint is meant, and which base model its run began with. Nothing heavy is imported or read here."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medix.errors import ExportError
from medix.files import lookup, mapping_inside, open_inside
from medix_verl.export.manifest import MANIFEST, SHARD

RECORD: Final = "export.json"
"""What was found, in every exported folder; a folder without it was not written by an export."""
ROOT: Final = Path(__file__).resolve().parents[2]
HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_STEP: Final = re.compile(r"global_step_([0-9]{1,9})")
_TRACKER: Final = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True)
class Checkpoint:
    """One `actor` folder of a run, found but not yet read.

    Attributes:
        actor: folder of `model_world_size_W_rank_R.pt`, and of `huggingface/` with the model's config and tokenizer.
        step: global step; None if the folder's name does not tell.
        run_dir: `outputs/RUN`; None for a checkpoint that stands alone.
        world_size: number of shards.
    """

    actor: Path
    step: int | None
    run_dir: Path | None
    world_size: int

    @property
    def side_files(self) -> Path:
        """Folder of config, tokenizer, processor and generation config."""
        return self.actor / "huggingface"

    @property
    def shards(self) -> list[Path]:
        """The shards in order of rank."""
        return [self.actor / f"model_world_size_{self.world_size}_rank_{rank}.pt" for rank in range(self.world_size)]

    @property
    def shown(self) -> str:
        """The path from the run's folder on: the record goes to the hub, and the rest is private."""
        top = self.run_dir or (self.actor.parent if self.step is not None else self.actor)
        return self.actor.relative_to(top.parent).as_posix()


def locate(path: Path, best: bool = False) -> Checkpoint:
    """Find the checkpoint at `path`: a run, its `checkpoints/`, a `global_step_N` or an `actor` folder.

    Args:
        best: of a run, the step that its `checkpoints/best.json` names, not the last finished one.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        others = sorted(item.name for item in path.parent.glob("global_step_*") if _STEP.fullmatch(item.name))
        there = f" There are: {', '.join(others)}." if others else ""
        raise ExportError(f"There is no folder {path}.", f"Name a run, a global_step_N or an actor folder.{there}")
    is_actor = (path / "fsdp_config.json").is_file() or any(SHARD.fullmatch(item.name) for item in path.iterdir())
    is_run = not is_actor and not _STEP.fullmatch(path.name)
    if best and not is_run:
        raise ExportError("--best chooses a step of a run.", "Leave it out, or give the run's folder.")
    actor = path if is_actor else path / "actor"
    if is_run:
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        actor = folder / f"global_step_{_step_of(folder, best)}" / "actor"
    if not actor.is_dir():
        raise ExportError(f"There is no checkpoint at {actor}.", "Choose another step of the run.")
    if not (real := actor.resolve()).is_relative_to(path.resolve()):
        raise ExportError(f"{actor} leads out of {path}.", f"Name the folder itself: {real}.")
    match, above = _STEP.fullmatch(actor.parent.name), actor.parent.parent
    if match is None:
        return Checkpoint(actor, None, None, _world_size(actor))
    # A trainer writes the data loader's state and the note of the last step after the actor.
    later = [actor / MANIFEST, actor.parent / "data.pt", actor.parent / "dataloader.pt"]
    step, newest = int(match[1]), _tracked(above)
    if newest is not None and newest < step and not any(item.exists() for item in later):
        found = f"{actor.parent} is a half-written folder: the run's last finished step is {newest}."
        raise ExportError(found, f"Export step {newest}, or resume the run so that it saves again.")
    return Checkpoint(actor, step, above.parent if above.name == "checkpoints" else None, _world_size(actor))


def _step_of(folder: Path, best: bool) -> int:
    step = mapping_inside(folder, "best.json").get("step") if best else _tracked(folder)
    if isinstance(step, int):
        return step
    steps = sorted(int(match[1]) for item in folder.iterdir() if (match := _STEP.fullmatch(item.name)))
    if not steps:
        raise ExportError(
            f"There is no checkpoint in {folder}.",
            "Name a run that has saved one, its global_step_N or an actor folder.",
        )
    if best or len(steps) != 1:
        note = "best.json, which runs that validate write" if best else _TRACKER
        raise ExportError(f"{folder} has the steps {steps[:20]} and no {note}.", "Name the folder of one step.")
    return steps[0]


def _tracked(folder: Path) -> int | None:
    if not (folder / _TRACKER).exists():
        return None
    with open_inside(folder, _TRACKER) as file:
        text = file.read(100).decode(errors="replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise ExportError(f"{folder / _TRACKER} names no step.", "Name the folder of one step.")
    return int(text)


def _world_size(actor: Path) -> int:
    found = [match for item in actor.iterdir() if (match := SHARD.fullmatch(item.name)) and match[1] == "model"]
    sizes, ranks = sorted({int(match[2]) for match in found}), {int(match[3]) for match in found}
    said = mapping_inside(actor, "fsdp_config.json").get("world_size")
    if not found:
        raise ExportError(f"{actor} has no model_world_size_W_rank_R.pt.", "Choose a checkpoint with weights.")
    if len(sizes) > 1 or said not in (None, sizes[0]):
        there = f"{actor} has shards of {' and '.join(map(str, sizes))} ranks (fsdp_config.json names {said})."
        raise ExportError(there, "Remove the shards that an earlier attempt of the run left there.")
    # Counted by the files that are there: a number in a file's name must not cost memory.
    lacking = [rank for rank in range(min(sizes[0], len(ranks) + 1)) if rank not in ranks]
    if lacking:
        there = f"Of {sizes[0]} shards {len(ranks)} are in {actor}; that of rank {lacking[0]} is missing."
        raise ExportError(there, "Copy the missing shards from the nodes that wrote them.")
    return sizes[0]


@dataclass(frozen=True)
class BaseModel:
    """The model that a run began with: its name, and its folder if it is on this machine."""

    name: str | None
    folder: Path | None = None

    @property
    def shown(self) -> str | None:
        """The name for others to read: of a local folder the last part, as its place is private."""
        return self.name and (self.name if self.on_hub else Path(self.name).name)

    @property
    def on_hub(self) -> bool:
        """Whether the name is one of the hub, such as `Qwen/Qwen2.5-VL-7B-Instruct`."""
        return bool(self.name and HUB_NAME.fullmatch(self.name))


def find_base(run_dir: Path | None, override: Path | None = None) -> BaseModel:
    """Return the base model: `--base`, else what the run's configuration names. The network is not asked."""
    name = lookup(mapping_inside(run_dir, "config.yaml"), "actor_rollout_ref.model.path")
    name = name if isinstance(name, str) and name else None
    if override is not None and not (override / "config.json").is_file():
        raise ExportError(f"There is no config.json in {override}.", "Name a model's folder with --base.")
    if override is not None or name is None or run_dir is None:
        return BaseModel(name or (str(override) if override else None), override and override.absolute())
    # A relative path was relative to where the recipe ran: the checkout, as a rule. A run may also have been moved.
    places = (Path(name).expanduser(), ROOT / name, run_dir / Path(name).name)
    here = next((place.absolute() for place in places if (place / "config.json").is_file()), None)
    return BaseModel(name, here or _in_hub_cache(name))


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import snapshot_download

    with contextlib.suppress(OSError, ValueError):  # It is not there, or the name is none of the hub.
        return Path(snapshot_download(name, local_files_only=True))
    return None
