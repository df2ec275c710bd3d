"""Preflight of checkpoints: their room, who deletes them, and whether one can be best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medix.errors import ConfigError
from medix_verl.preflight.check import run_check
from medix_verl.preflight.disk import check_best, check_disk, checkpoint_bytes, needs

MODEL, SEVEN_B = "actor_rollout_ref.model.path", "Qwen/Qwen2.5-VL-7B-Instruct"
CKPT_GB = 4 * 3 * 8_292_166_656 / 1e9
"""fp32: weights and two moments of the 7B's parameters."""


def free_gb(gigabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=gigabytes * 1e9))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, 2),  # steps 20 and 40
        ({"trainer.save_freq": 15}, 3),  # steps 15 and 30, and veRL saves the last
        ({"trainer.save_freq": 1}, 5),  # the last 3, the best, and the new one before the oldest goes
        ({"trainer.save_freq": 1, "medix.checkpoints": {"keep_last": 1, "keep_best": False}}, 2),
        ({"trainer.save_freq": 1, "medix.checkpoints.keep_last": 0}, 40),
        ({"trainer.save_freq": 1, "trainer.total_training_steps": None}, 5),
        ({"trainer.save_freq": -1}, 1),  # only if a guard stops the run
    ],
)
def test_room_is_reckoned_for_the_checkpoints_that_will_be_kept(
    changes: dict[str, Any], kept: int, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_gb(10_000, monkeypatch)
    found = check_disk(make_config(changes))
    assert isinstance(found, str)
    assert f"{kept} of {kept} checkpoint(s) {CKPT_GB * kept:.3g} GB" in found


def test_no_end_to_the_checkpoints_is_refused(make_config: Any) -> None:
    endless = {"medix.checkpoints.keep_last": 0, "trainer.total_training_steps": None}
    with pytest.raises(ConfigError, match=r"no trainer\.total_training_steps"):
        check_disk(make_config(endless))


def test_adapters_add_their_own_moments_only(make_config: Any) -> None:
    """Rank 16 adds 40,370,176 to 8,292,166,656 parameters. fp32: 4 x (8.292 + 0.040 + 2 x 0.040) GB."""
    assert checkpoint_bytes(make_config()) == 4 * 3 * 8_292_166_656
    adapted = make_config({"actor_rollout_ref.model.lora_rank": 16})
    assert checkpoint_bytes(adapted) == 4 * (8_292_166_656 + 3 * 40_370_176)


def test_what_a_resumed_run_has_already_needs_no_room(
    tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints of 99.5 GB are kept. With one of them there, and room for one and a half, a resume may start."""
    free_gb(150, monkeypatch)
    monkeypatch.setattr("medix_verl.preflight.disk.downloads", lambda config: [])
    config = make_config({"trainer.default_local_dir": str(tmp_path / "checkpoints"), "trainer.device": "cpu"})
    found = run_check("disk", lambda: check_disk(config))
    assert (found.status, "HF_HOME" in found.remedy) == ("fail", True)
    (tmp_path / "checkpoints/global_step_20").mkdir(parents=True)
    assert "1 of 2 checkpoint(s) 99.5 GB" in str(check_disk(config))


def test_a_model_that_is_not_known_is_a_warning(make_config: Any) -> None:
    assert run_check("disk", lambda: check_disk(make_config({MODEL: "some/other-model"}))).status == "warn"


def test_downloads_and_the_arrow_copy_need_room_too(
    tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_verl.preflight.disk.HUB_CACHE", tmp_path / "hub")
    parquet = str(tmp_path / "data/train.parquet")
    files = {"data.train_files": parquet, "data.val_files": parquet}
    config = make_config({"reward.reward_model.enable": True, **files})
    sizes = {what: round(size, 1) for what, size, _ in needs(config)}
    # 2 bytes x 8.292e9; the judge's 4.022e9; the released data 24 GB, prepared and copied as Arrow.
    assert sizes == {
        "2 of 2 checkpoint(s)": 199.0, f"model {SEVEN_B}": 16.6, "Arrow copy of the data": 24.0,
        "model Qwen/Qwen3-4B-Instruct-2507": 8.0, "data": 24.0,
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.parquet").write_bytes(bytes(10**6))
    (tmp_path / "datasets/parquet").mkdir(parents=True)
    (tmp_path / "datasets/parquet/x.arrow").write_bytes(bytes(2 * 10**6))  # as much as is copied
    assert not {"Arrow copy of the data", "data"} & {what for what, _, _ in needs(config)}


BEST: dict[str, tuple[dict[str, Any], str]] = {
    "every save is validated": ({}, "pass"),
    "some saves are not": ({"trainer.save_freq": 5}, "warn"),
    "nothing is validated": ({"trainer.test_freq": -1}, "warn"),
    "nothing is validated, nor asked for": ({"trainer.test_freq": -1, "medix.checkpoints.keep_best": False}, "pass"),
    "another callback": ({"trainer.checkpoint_callback_class": "mine.Callback"}, "warn"),
    "no callback": ({"trainer.checkpoint_callback_class": None}, "warn"),
    "veRL would delete the best one": ({"trainer.max_actor_ckpt_to_keep": 3}, "fail"),
}


@pytest.mark.parametrize(("changes", "status"), BEST.values(), ids=BEST.keys())
def test_a_best_checkpoint_needs_steps_that_are_saved_and_validated(
    changes: dict[str, Any], status: str, make_config: Any
) -> None:
    found = run_check("checkpoints", lambda: check_best(make_config(changes)))
    assert found.status == status
    assert ("medix.checkpoints.keep_last" in found.remedy) == (status == "fail")
