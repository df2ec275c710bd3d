"""Which checkpoint a path names, which base model its run had, and the manifest that a checkpoint must keep to."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medix.errors import MedixError
from medix_verl.export.checkpoint import find_base, locate
from medix_verl.export.manifest import MANIFEST, refuse_other_files, write_manifest

LATEST = "latest_checkpointed_iteration.txt"


def actor(folder: Path, step: int, world: int = 2) -> Path:
    """`global_step_N/actor` with files that look like shards from outside."""
    path = folder / f"global_step_{step}" / "actor"
    path.mkdir(parents=True)
    for rank in range(world):
        name = f"model_world_size_{world}_rank_{rank}"
        with zipfile.ZipFile(path / f"{name}.pt", "w") as archive:
            archive.writestr(f"{name}/data/0", f"step {step} of rank {rank}")
    (path / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with steps 5 and 10, the second its last, the first its best."""
    for step in (5, 10):
        actor(tmp_path / "run" / "checkpoints", step)
    (tmp_path / "run/checkpoints" / LATEST).write_text("10")
    (tmp_path / "run/checkpoints/best.json").write_text('{"step": 5, "metric": "val/acc", "value": 0.7}')
    return tmp_path / "run"


@pytest.mark.parametrize("asked", ["", "checkpoints", "checkpoints/global_step_10", "checkpoints/global_step_10/actor"])
def test_every_level_of_a_run_names_its_checkpoint(asked: str, run: Path) -> None:
    found = locate(run / asked)
    assert (found.step, found.run_dir, found.world_size) == (10, run, 2)
    assert found.shown == "run/checkpoints/global_step_10/actor"


def test_best_and_last_and_an_actor_folder_that_stands_alone(run: Path, tmp_path: Path) -> None:
    assert (locate(run, best=True).step, locate(run).step) == (5, 10)
    (run / "checkpoints/global_step_5/actor").rename(tmp_path / "weights")
    found = locate(tmp_path / "weights")
    assert (found.step, found.run_dir, found.shown) == (None, None, "weights")


def half_written(run: Path) -> Path:
    return actor(run / "checkpoints", 15).parent


def written(name: str, text: str | None, then: str = "") -> Callable[[Path], Path]:
    def change(run: Path) -> Path:
        path = run / "checkpoints" / name
        path.unlink() if text is None else path.write_text(text)
        return run / then

    return change


def huge_world(run: Path) -> Path:
    """It took more than 4 GB and a minute."""
    folder = run / "checkpoints/global_step_5/actor"
    for path in folder.iterdir():
        path.unlink()
    (folder / "model_world_size_999999_rank_0.pt").write_bytes(b"")
    return folder


def leads_out(run: Path) -> Path:
    (run / "checkpoints/global_step_10").rename(run.parent / "elsewhere")
    (run / "checkpoints/global_step_10").symlink_to(run.parent / "elsewhere")
    return run


def loop(run: Path) -> Path:
    (run / "loop").symlink_to("loop")
    return run / "loop"


FIVE = "checkpoints/global_step_5"
REFUSED: dict[str, tuple[Callable[[Path], Path], bool, str]] = {
    "half-written": (half_written, False, "half-written folder"),
    "no best": (written("best.json", None), True, "no best.json"),
    "a best that is no number": (written("best.json", '{"step": "x"}'), True, "no best.json"),
    "best of one step": (lambda run: run / FIVE, True, "chooses a step of a run"),
    "two steps, no tracker": (written(LATEST, None), False, f"[5, 10] and no {LATEST}"),
    "tracker cut off": (written(LATEST, ""), False, "names no step"),
    "tracked step gone": (written(LATEST, "20"), False, "There is no checkpoint at"),
    "other world size": (written("global_step_5/actor/fsdp_config.json", '{"world_size": 4}', FIVE), False, "names 4"),
    "a second world size": (
        written("global_step_5/actor/model_world_size_8_rank_0.pt", "", FIVE), False, "shards of 2 and 8 ranks",
    ),
    "a missing shard": (written("global_step_5/actor/model_world_size_2_rank_0.pt", None, FIVE), False, "rank 0 is"),
    "a huge world size": (huge_world, False, "Of 999999 shards 1 are"),
    "a step that is a link": (leads_out, False, "leads out of"),
    "a link loop": (loop, False, "There is no folder"),
    "no such folder": (lambda run: run / "nothing", False, "There is no folder"),
    "an empty folder": (lambda run: run.parent, False, "There is no checkpoint in"),
    "another step": (lambda run: run / "checkpoints/global_step_7", False, "There are: global_step_10, global_step_5."),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_names_no_checkpoint_is_refused(case: str, run: Path) -> None:
    spoil, best, message = REFUSED[case]
    path = spoil(run)
    with pytest.raises(MedixError) as refused:
        locate(path, best=best)
    assert message in str(refused.value)


@pytest.mark.parametrize("proof", ["data.pt", "dataloader.pt", f"actor/{MANIFEST}"])
def test_a_step_after_the_tracked_one_counts_once_its_save_is_whole(proof: str, run: Path) -> None:
    """A run that was resumed from an earlier step tracks that one; the later folder is whole all the same."""
    folder = half_written(run)
    (folder / proof).write_text("{}")
    assert locate(folder).step == 15


SHARD = "model_world_size_2_rank_0.pt"
CHANGED: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "another step's name": (lambda actor: None, 11, "holds the files of step 10"),
    "another config": (lambda a: (a / "fsdp_config.json").write_text("{}"), 10, "not as it was saved at step 10"),
    "a file gone": (lambda a: (a / "fsdp_config.json").unlink(), 10, "was saved and is missing"),
    "a stale shard": (
        lambda a: shutil.copy(a.parents[1] / "global_step_5/actor" / SHARD, a), 10, "a stale file",
    ),
    "a shard more": (lambda a: (a / "model_world_size_3_rank_2.pt").write_text(""), 10, "does not list model_world_si"),
    "cut off": (lambda a: (a / MANIFEST).write_text('{"format": 1'), 10, "can not be read"),
    "no files": (lambda a: (a / MANIFEST).write_text('{"format": 1, "files": {}}'), 10, "no manifest of format 1"),
    "a list": (lambda a: (a / MANIFEST).write_text("[1]"), 10, "not a mapping"),
    "an entry that is none": (
        lambda a: (a / MANIFEST).write_text('{"format": 1, "files": {"fsdp_config.json": 1}}'), 10, "does not list",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED)
def test_a_manifest_is_kept_to(case: str, run: Path) -> None:
    folder = run / "checkpoints/global_step_10/actor"
    assert not refuse_other_files(folder, 10)
    assert json.loads(write_manifest(folder).read_text())["step"] == 10
    assert refuse_other_files(folder, 10)
    change, step, message = CHANGED[case]
    change(folder)
    with pytest.raises(MedixError) as refused:
        refuse_other_files(folder, step)
    assert message in str(refused.value)


def test_the_base_model_is_where_the_run_says(run: Path, tmp_path: Path) -> None:
    assert find_base(run).name is None
    (run / "config.yaml").write_text(json.dumps({"actor_rollout_ref": {"model": {"path": "/gone/tiny"}}}))
    assert (find_base(run).shown, find_base(run).folder) == ("tiny", None)
    (run / "tiny").mkdir()  # the run was moved, and its model with it
    (run / "tiny/config.json").write_text("{}")
    assert find_base(run).folder == run / "tiny"
    assert find_base(run, run / "tiny").folder == run / "tiny"
    with pytest.raises(MedixError, match=r"no config\.json"):
        find_base(run, tmp_path)


def test_the_trainers_part_imports_no_torch() -> None:
    """`plugins/checkpoint_callback.py` writes the manifest in training's driver."""
    code = "import sys, medix_verl.export.manifest as m; print({'torch', 'transformers', 'jinja2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
