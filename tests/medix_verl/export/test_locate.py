"""Which checkpoint a path names, and which manifest it must keep to. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medix.errors import ExportError
from medix_verl.export.locate import locate
from medix_verl.export.manifest import MANIFEST, read_manifest, refuse_other_files, write_manifest

from .fake_shards import FakeShard


def actor(folder: Path, step: int, world: int = 2, value: float = 0.0) -> Path:
    """`global_step_N/actor` with small shards."""
    path = folder / f"global_step_{step}" / "actor"
    path.mkdir(parents=True)
    for rank in range(world):
        shard = FakeShard()
        shard.save(path / f"model_world_size_{world}_rank_{rank}.pt", {"w": shard.tensor([value + rank], (1,))})
    (path / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with steps 5 and 10, the second its last, the first its best."""
    checkpoints = tmp_path / "run" / "checkpoints"
    for step in (5, 10):
        actor(checkpoints, step, value=float(step))
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("10")
    (checkpoints / "best.json").write_text('{"step": 5, "metric": "val/acc", "value": 0.7}')
    return tmp_path / "run"


@pytest.mark.parametrize("asked", ["", "checkpoints", "checkpoints/global_step_10", "checkpoints/global_step_10/actor"])
def test_every_level_of_a_run_names_its_checkpoint(asked: str, run: Path) -> None:
    found = locate(run / asked)
    assert (found.step, found.run_dir, found.world_size) == (10, run, 2)
    assert found.base_files == found.actor / "huggingface"


def test_best_and_last(run: Path) -> None:
    assert locate(run, best=True).step == 5
    assert locate(run, last=True).step == 10


def test_an_actor_folder_that_stands_alone(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints/global_step_5/actor").rename(tmp_path / "weights")
    found = locate(tmp_path / "weights")
    assert (found.step, found.run_dir) == (None, None)


def test_a_released_easyr1_folder(tmp_path: Path) -> None:
    for step in (100, 200):
        (actor(tmp_path, step) / "fsdp_config.json").unlink()
    tracker = {"best_global_step": 100, "best_val_reward_score": 0.6, "last_global_step": 200, "last_actor_path": "x"}
    (tmp_path / "checkpoint_tracker.json").write_text(json.dumps(tracker))
    assert (locate(tmp_path).step, locate(tmp_path, best=True).step) == (200, 100)
    assert locate(tmp_path).world_size == 2
    assert locate(tmp_path).run_dir is None


def half_written(run: Path) -> Path:
    actor(run / "checkpoints", 15)
    return run / "checkpoints/global_step_15"


def no_best(run: Path) -> Path:
    (run / "checkpoints/best.json").unlink()
    return run


def two_steps_and_no_tracker(run: Path) -> Path:
    (run / "checkpoints/latest_checkpointed_iteration.txt").unlink()
    return run


def tracker_cut_off(run: Path) -> Path:
    (run / "checkpoints/latest_checkpointed_iteration.txt").write_text("")
    return run


def tracked_step_gone(run: Path) -> Path:
    (run / "checkpoints/latest_checkpointed_iteration.txt").write_text("20")
    return run


def no_shards(run: Path) -> Path:
    for path in (run / "checkpoints/global_step_5/actor").glob("*.pt"):
        path.unlink()
    return run / "checkpoints/global_step_5"


def said_another_world(run: Path) -> Path:
    folder = run / "checkpoints/global_step_5"
    (folder / "actor/fsdp_config.json").write_text('{"world_size": 4}')
    return folder


REFUSED: dict[str, tuple[Callable[[Path], Path], bool, str]] = {
    "half-written": (half_written, False, "half-written folder"),
    "no best": (no_best, True, "a record of the best step"),
    "best of one step": (lambda run: run / "checkpoints/global_step_5", True, "a run folder for --best"),
    "two steps, no tracker": (two_steps_and_no_tracker, False, "steps 5, 10 and no latest_checkpointed_iteration.txt"),
    "tracker cut off": (tracker_cut_off, False, "found ''"),
    "tracked step gone": (tracked_step_gone, False, "an actor folder"),
    "no shards": (no_shards, False, "shards model_world_size_W_rank_R.pt"),
    "other world size": (said_another_world, False, "of 4 ranks (fsdp_config.json)"),
    "no such folder": (lambda run: run / "nothing", False, "no folder at"),
    "an empty folder": (lambda run: run.parent, False, "global_step_N"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_names_no_checkpoint_is_refused(case: str, run: Path) -> None:
    spoil, best, message = REFUSED[case]
    path = spoil(run)
    with pytest.raises(ExportError) as refused:
        locate(path, best=best)
    assert message in str(refused.value)


@pytest.mark.parametrize("proof", ["data.pt", "dataloader.pt", f"actor/{MANIFEST}"])
def test_a_step_after_the_tracked_one_counts_once_its_save_is_proved(proof: str, run: Path) -> None:
    """A run that was resumed from an earlier step tracks that one; the later folder is whole all the same."""
    folder = half_written(run)
    (folder / proof).write_text("{}")
    assert locate(folder).step == 15


def test_a_manifest_is_kept_to(run: Path) -> None:
    folder = run / "checkpoints/global_step_10/actor"
    assert read_manifest(folder) is None
    write_manifest(folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest["step"] == 10
    refuse_other_files(folder, manifest, 10)
    with pytest.raises(ExportError, match="the files of step 10"):
        refuse_other_files(folder, manifest, 11)
    (folder / "fsdp_config.json").write_text("{}")
    with pytest.raises(ExportError, match=r"fsdp_config\.json as it was saved at step 10"):
        refuse_other_files(folder, manifest, 10)
    (folder / "fsdp_config.json").unlink()
    with pytest.raises(ExportError, match=r"fsdp_config\.json, which was saved"):
        refuse_other_files(folder, manifest, 10)


ENTRY = {"bytes": 1, "digest": "d"}
MANIFESTS: dict[str, tuple[str, str]] = {
    "cut off": ('{"format": 1', "a manifest of format 1"),
    "another format": (json.dumps({"format": 2, "files": {"x": ENTRY}}), "a manifest of format 1"),
    "no object": ("[1]", "a manifest of format 1"),
    "no files": (json.dumps({"format": 1, "files": {}}), "a manifest of format 1"),
    "an entry without a digest": (json.dumps({"format": 1, "files": {"x": {"bytes": 1}}}), "a manifest of format 1"),
    "an entry that is none": (json.dumps({"format": 1, "files": {"x": "y"}}), "a manifest of format 1"),
    "only small files": (
        json.dumps({"format": 1, "step": 10, "files": {"fsdp_config.json": ENTRY}}),
        "no entry for model_world_size_2_rank_0.pt (2 shards without one)",
    ),
    "one of two shards": (
        json.dumps({"format": 1, "step": 10, "files": {"model_world_size_2_rank_0.pt": ENTRY}}),
        "no entry for model_world_size_2_rank_1.pt (1 shards without one)",
    ),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_proves_nothing_is_refused(case: str, run: Path) -> None:
    """An empty one `proved` that every file was as its save left it."""
    folder = run / "checkpoints/global_step_10/actor"
    text, message = MANIFESTS[case]
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ExportError) as refused:
        refuse_other_files(folder, read_manifest(folder) or {}, 10)
    assert message in str(refused.value)
