"""Whether all shards are of one save: what can be proved from the folder and its neighbours, and what cannot."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medix.errors import ExportError
from medix_verl.export.archive import Archive, modified_s
from medix_verl.export.contract import Checkpoint
from medix_verl.export.manifest import MANIFEST, read_manifest, refuse_other_files
from medix_verl.export.unpickle import Local, read_facts

_STALE = "restore the shard that this step's save wrote, or export another step"
_FAR_APART_S = 600.0
"""Ranks save between two barriers: shards of one save are written within minutes."""


def prove_one_save(checkpoint: Checkpoint, archives: Sequence[Archive]) -> tuple[list[str], list[str]]:
    """Sentences on what is proved, and on what is not.

    Raises:
        ExportError: a shard is a stale one of another step, as far as the evidence reaches.
    """
    proved, unproved = [], []
    manifest = read_manifest(checkpoint.actor)
    if manifest is not None:
        refuse_other_files(checkpoint.actor, manifest, checkpoint.step)
        proved.append(f"every file is as the save of step {manifest.get('step')} left it ({MANIFEST})")
    compared = _refuse_reused(checkpoint, archives)
    if compared:
        proved.append(f"no shard is one of the other steps beside it ({', '.join(map(str, compared))})")
    counts = _refuse_other_counts(checkpoint)
    if counts:
        proved.append(f"{' and '.join(counts)} of all ranks are at the same step")
    if manifest is None:
        unproved.append(f"that every model shard is of the step that the folder names: the run wrote no {MANIFEST}")
        times = sorted(modified_s(archive.path) for archive in archives)
        if times[-1] - times[0] > _FAR_APART_S:
            unproved.append(
                f"the shards were last changed {times[-1] - times[0]:.0f} s apart, more than one save takes"
            )
    return proved, unproved


def _refuse_reused(checkpoint: Checkpoint, archives: Sequence[Archive]) -> list[int]:
    """Compare each shard with the same rank's of the run's other steps; the steps that were there to compare with."""
    if checkpoint.step is None:
        return []
    compared = []
    for actor in sorted(checkpoint.actor.parent.parent.glob("global_step_*/actor")):
        if actor == checkpoint.actor:
            continue
        step = actor.parent.name.removeprefix("global_step_")
        same = [archive for archive in archives if _is_copy(archive, actor / archive.path.name)]
        # All alike is a run that learnt nothing between the two steps (a learning rate of 0), not a mix.
        if same and len(same) < len(archives):
            found = f"step {step}'s contents in {', '.join(archive.path.name for archive in same)}"
            raise ExportError(f"shards of step {checkpoint.step} only", f"a stale shard: {found}", _STALE)
        if not same and step.isdigit():
            compared.append(int(step))
    return sorted(compared)


def _is_copy(archive: Archive, other: Path) -> bool:
    try:
        return other.is_file() and Archive(other).digest == archive.digest
    except ExportError:
        return False  # A damaged neighbour says nothing about this checkpoint.


def _refuse_other_counts(checkpoint: Checkpoint) -> list[str]:
    """The step counters that veRL saves beside the model, over all ranks; names of those that all ranks have."""
    agreed = []
    for kind, what, count in (
        ("extra_state", "the learning rate schedulers", _scheduler_step),
        ("optim", "the optimizers", _optimizer_step),
    ):
        names = [f"{kind}_world_size_{checkpoint.world_size}_rank_{rank}" for rank in range(checkpoint.world_size)]
        counts = [count(checkpoint.actor / f"{name}.pt") for name in names]
        if len({value for value in counts if value is not None}) > 1:
            found = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(counts))
            raise ExportError(
                f"{what} of all ranks at the same step", f"files of different steps ({found}): stale shards", _STALE
            )
        if counts[0] is not None and None not in counts:
            agreed.append(what)
    return agreed


def _scheduler_step(path: Path) -> int | None:
    facts = _facts(path)
    scheduler = facts[1].get("lr_scheduler") if facts else None
    step = scheduler.get("last_epoch") if isinstance(scheduler, dict) else None
    return step if isinstance(step, int) else None


def _optimizer_step(path: Path) -> int | None:
    """Updates done, from the first parameter's state: a number, or a float32 tensor of one item."""
    facts = _facts(path)
    states = facts[1].get("state") if facts else None
    if facts is None or not isinstance(states, dict):
        return None
    for state in states.values():
        step = state.get("step") if isinstance(state, dict) else None
        if isinstance(step, int | float):
            return int(step)
        if isinstance(step, Local) and step.dtype == "float32":
            try:
                raw = facts[0].contents(f"data/{step.storage.key}")
                return int(struct.unpack_from("<f", raw, 4 * step.offset)[0])
            except (ExportError, struct.error, ValueError, OverflowError):
                return None  # As in _facts: it is no part of the export.
    return None


def _facts(path: Path) -> tuple[Archive, dict[Any, Any]] | None:
    """None where there is no such file, or one in a form that tells nothing: it is no part of the export."""
    try:
        archive = Archive(path)
        facts = read_facts(archive)
    except (ExportError, OSError):
        return None
    return (archive, facts) if isinstance(facts, dict) else None
