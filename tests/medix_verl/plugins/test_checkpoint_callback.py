"""The checkpoint callback on veRL's own base class, called as veRL's trainer calls it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix_verl.training.watch import request_stop

pytestmark = pytest.mark.slow  # imports torch, veRL and Ray


def make_config(run: Path) -> Any:
    trainer = {"checkpoint_callback_class": "medix_verl.plugins.checkpoint_callback.MedixCheckpointCallback"}
    trainer |= {"default_local_dir": str(run / "checkpoints"), "save_freq": 20, "total_epochs": 1000}
    medix = {"run_dir": str(run), "checkpoints": {"keep_last": 1}}
    return OmegaConf.create({"medix": medix, "trainer": trainer, "data": {"val_files": []}})


def make_callback(config: Any) -> Any:
    """By veRL's own factory: the name in the recipes is the one it finds."""
    from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback

    return build_checkpoint_callback(config)


def on_save(callback: Any, folder: Path, step: int, **kwargs: Any) -> None:
    """Leave what veRL leaves of a save, then call the hook as it does."""
    import torch

    checkpoint = folder / f"global_step_{step}"
    (checkpoint / "actor").mkdir(parents=True)
    torch.save({"w": torch.zeros(2)}, checkpoint / "actor" / "model_world_size_1_rank_0.pt")
    (checkpoint / "data.pt").write_bytes(b"data")
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))
    callback.on_save(trainer=None, global_step=step, checkpoint_dir=str(checkpoint), **kwargs)


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.split("_")[-1]) for path in folder.glob("global_step_*"))


def log(file: Path, step: int, value: float) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps({"step": step, "data": {"val-aux/x/reward/mean@1": value}}) + "\n")


def test_a_save_leaves_a_manifest_the_best_and_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 5 was validated by an earlier attempt, step 10 in this one, whose rows the supervisor has yet to copy."""
    attempt, folder = tmp_path / "001.jsonl", tmp_path / "checkpoints"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(attempt))
    callback = make_callback(make_config(tmp_path))
    on_save(callback, folder, 5)
    log(tmp_path / "metrics.jsonl", 5, 0.4)
    on_save(callback, folder, 10)
    log(attempt, 10, 0.9)
    on_save(callback, folder, 15)
    assert json.loads((folder / "best.json").read_text())["step"] == 10
    assert steps_of(folder) == [10, 15]
    manifest = json.loads((folder / "global_step_15/actor/manifest.json").read_text())
    assert manifest["step"] == 15
    assert list(manifest["files"]) == ["model_world_size_1_rank_0.pt"]


def test_an_asynchronous_save_is_left_to_verl(tmp_path: Path) -> None:
    callback, folder = make_callback(make_config(tmp_path)), tmp_path / "checkpoints"
    on_save(callback, folder, 5)
    on_save(callback, folder, 10, async_save=True)
    assert steps_of(folder) == [5, 10]
    assert not (folder / "global_step_10/actor/manifest.json").exists()


def test_a_request_has_the_step_saved_and_then_ends_the_loop(tmp_path: Path) -> None:
    """veRL's loop reads `save_freq` at the end of each step, and `total_epochs` before the next."""
    config = make_config(tmp_path)
    callback, folder = make_callback(config), tmp_path / "checkpoints"
    on_save(callback, folder, 20)
    assert (config.trainer.save_freq, config.trainer.total_epochs) == (20, 1000)
    request_stop(tmp_path, 22, "the reward was constant")
    until = time.monotonic() + 10
    while config.trainer.save_freq != 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert (config.trainer.save_freq, config.trainer.total_epochs) == (1, 1000)  # not before it is saved
    on_save(callback, folder, 23)
    assert config.trainer.total_epochs == 0
