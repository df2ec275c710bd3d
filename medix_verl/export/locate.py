"""Which checkpoint is meant: a run folder, its `checkpoints/`, a `global_step_N` or an `actor` folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from medix.errors import ExportError
from medix_verl.export.contract import Checkpoint
from medix_verl.export.manifest import MANIFEST

SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_STEP = re.compile(r"global_step_(\d+)")
_TRACKER = "latest_checkpointed_iteration.txt"
_EASYR1_TRACKER = "checkpoint_tracker.json"
_BEST = "best.json"


def locate(path: Path, *, best: bool = False, last: bool = False) -> Checkpoint:
    """The checkpoint at `path`.

    Args:
        best: of a run, the step that its `checkpoints/best.json` names.
        last: of a run, the last finished step; also what is taken when neither is asked for.

    Raises:
        ExportError: there is no checkpoint, it was not finished, or the question has two answers.
    """
    path = Path(path).absolute()
    if best and last:
        raise ExportError("one checkpoint to export", "both --best and --last", "give one of the two")
    if not path.is_dir():
        raise ExportError("a run, checkpoint or actor folder", f"no folder at {path}", "give the path of a run")
    actor = path if _is_actor(path) else path / "actor" if _STEP.fullmatch(path.name) else None
    if actor is None:
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        actor = folder / f"global_step_{_best(folder) if best else _last(folder)}" / "actor"
    elif best or last:
        asked = "--best" if best else "--last"
        raise ExportError(f"a run folder for {asked}", f"one checkpoint: {path}", f"leave {asked} out, or give the run")
    return _checkpoint(actor)


def _is_actor(path: Path) -> bool:
    return any(SHARD.fullmatch(item.name) for item in path.iterdir()) or (path / "fsdp_config.json").is_file()


def _checkpoint(actor: Path) -> Checkpoint:
    if not actor.is_dir():
        raise ExportError("an actor folder in the checkpoint", f"none: {actor}", "choose another step of the run")
    match = _STEP.fullmatch(actor.parent.name)
    step = int(match.group(1)) if match else None
    if step is not None:
        _refuse_unfinished(actor, step)
    folder = actor.parent.parent
    run = folder.parent if step is not None and folder.name == "checkpoints" else None
    return Checkpoint(actor, step, run, _world_size(actor), actor / "huggingface")


def _refuse_unfinished(actor: Path, step: int) -> None:
    """A trainer that was killed while it saved: it writes the data loader's state and the tracker after the actor."""
    later = [actor / MANIFEST, actor.parent / "data.pt", actor.parent / "dataloader.pt"]
    newest = _tracked(actor.parent.parent)
    if newest is not None and newest < step and not any(item.exists() for item in later):
        raise ExportError(
            "a checkpoint that was saved to its end",
            f"half-written folder {actor.parent}: the run's last finished step is {newest}",
            f"export step {newest}, or resume the run so that it saves again",
        )


def _world_size(actor: Path) -> int:
    """Ranks that saved: from fsdp_config.json, else (EasyR1) from the names of the shards."""
    named = sorted({int(match.group(1)) for item in actor.iterdir() if (match := SHARD.fullmatch(item.name))})
    config = actor / "fsdp_config.json"
    said = _json(config).get("world_size") if config.is_file() else None
    if not named:
        raise ExportError("shards model_world_size_W_rank_R.pt", f"none in {actor}", "choose a checkpoint with weights")
    if len(named) > 1 or (said is not None and named != [said]):
        sizes = " and ".join(map(str, named))
        raise ExportError(
            "the shards of one save" + (f", of {said} ranks (fsdp_config.json)" if said is not None else ""),
            f"shards of {sizes} ranks in {actor}",
            "remove the shards that an earlier attempt of the run left there",
        )
    return named[0]


def _best(folder: Path) -> int:
    if (folder / _BEST).is_file():
        return _number(_json(folder / _BEST).get("step"), folder / _BEST)
    if (folder / _EASYR1_TRACKER).is_file():
        return _number(_json(folder / _EASYR1_TRACKER).get("best_global_step"), folder / _EASYR1_TRACKER)
    raise ExportError(
        f"a record of the best step, {_BEST}",
        f"none in {folder}",
        "use --last, or name a global_step_N; the best step is recorded by runs that validate",
    )


def _last(folder: Path) -> int:
    tracked = _tracked(folder)
    if tracked is not None:
        return tracked
    steps = sorted(int(match.group(1)) for item in folder.iterdir() if (match := _STEP.fullmatch(item.name)))
    if len(steps) == 1:
        return steps[0]
    found = f"steps {', '.join(map(str, steps))} and no {_TRACKER} in {folder}" if steps else f"none in {folder}"
    raise ExportError("one finished checkpoint, global_step_N", found, "name the folder of one step")


def _tracked(folder: Path) -> int | None:
    """The last step that was saved to its end, as veRL or EasyR1 noted it."""
    if (folder / _TRACKER).is_file():
        return _number((folder / _TRACKER).read_text(encoding="utf-8").strip(), folder / _TRACKER)
    if (folder / _EASYR1_TRACKER).is_file():
        return _number(_json(folder / _EASYR1_TRACKER).get("last_global_step"), folder / _EASYR1_TRACKER)
    return None


def _number(value: Any, path: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ExportError(f"a step in {path}", repr(value), "name the folder of one step") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"JSON in {path}", str(error), "the file was cut off: name another step") from None
    return value if isinstance(value, dict) else {}
