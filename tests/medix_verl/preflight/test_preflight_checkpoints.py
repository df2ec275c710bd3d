"""Preflight of checkpoints: their room, who deletes them, and whether one can be best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.preflight.check import Check, run_check
from medix_verl.preflight.disk import check_best, check_disk, checkpoint_bytes, needs

OURS = "medix_verl.plugins.checkpoint_callback.MedixCheckpointCallback"


def model_folder(folder: Path) -> Path:
    """A million parameters, stored in bf16, without a config.json that says more."""
    folder.mkdir()
    header = {"w": {"dtype": "BF16", "shape": [1000, 1000], "data_offsets": [0, 2_000_000]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(2_000_000))
    return folder


def make_config(model: str, checkpoints: dict[str, Any] | None = None, lora: int = 0, **trainer: Any) -> Any:
    settings = {"total_training_steps": 40, "save_freq": 20, "test_freq": 10, **trainer}
    return OmegaConf.create(
        {
            "actor_rollout_ref": {
                "model": {"path": model, "lora_rank": lora, "enable_gradient_checkpointing": True},
                "actor": {
                    "fsdp_config": {
                        "model_dtype": "fp32",
                        "fsdp_size": -1,
                        "param_offload": True,
                        "optimizer_offload": True,
                    },
                    "use_kl_loss": False,
                    "use_dynamic_bsz": False,
                    "ppo_max_token_len_per_gpu": 1,
                    "ppo_micro_batch_size_per_gpu": 1,
                },
                "rollout": {
                    "log_prob_use_dynamic_bsz": False,
                    "log_prob_max_token_len_per_gpu": 1,
                    "max_model_len": 2,
                    "log_prob_micro_batch_size_per_gpu": 1,
                    "gpu_memory_utilization": 0.6,
                    "tensor_model_parallel_size": 1,
                    "free_cache_engine": True,
                },
                "ref": {"fsdp_config": {"param_offload": True}},
            },
            "algorithm": {"use_kl_in_reward": False},
            "data": {"max_prompt_length": 1, "max_response_length": 1, "train_files": "x", "val_files": "x"},
            "reward": {"reward_model": {"enable": True, "model_path": "Qwen/Qwen3-4B-Instruct-2507"}},
            "trainer": {
                "max_actor_ckpt_to_keep": None,
                "checkpoint_callback_class": OURS,
                "default_local_dir": "/tmp/medix/not/yet",
                "device": "cpu",
                "n_gpus_per_node": 1,
                "nnodes": 1,
                **settings,
            },
            "medix": {"checkpoints": checkpoints or {}},
        }
    )


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, 2),  # steps 20 and 40
        ({"save_freq": 15}, 3),  # steps 15 and 30, and veRL saves the last
        ({"save_freq": 1}, 5),  # the last 3, the best, and the new one before the oldest goes
        ({"save_freq": 1, "checkpoints": {"keep_last": 1, "keep_best": False}}, 2),
        ({"save_freq": 1, "checkpoints": {"keep_last": 0}}, 40),
        ({"save_freq": 1, "total_training_steps": None}, 5),
        ({"save_freq": -1}, 1),  # only if a guard stops the run
    ],
)
def test_room_is_reckoned_for_the_checkpoints_that_will_be_kept(
    changes: dict[str, Any], kept: int, tmp_path: Path
) -> None:
    found = check_disk(make_config(str(model_folder(tmp_path / "model")), **changes))
    # 10^6 parameters x 4 bytes x (weights + two moments) = 0.012 GB a checkpoint, whatever the file's own precision.
    assert isinstance(found, str)
    assert f"{kept} of {kept} checkpoint(s) {0.012 * kept:.3g} GB" in found


def test_no_end_to_the_checkpoints_is_refused(tmp_path: Path) -> None:
    config = make_config(str(model_folder(tmp_path / "m")), {"keep_last": 0}, total_training_steps=None)
    with pytest.raises(ConfigError, match=r"no trainer\.total_training_steps"):
        check_disk(config)


def test_adapters_add_their_own_moments_only() -> None:
    """Qwen2.5-VL-7B: 8,292,166,656 parameters; rank 16 adds 40,370,176. fp32: 4 x (8.292 + 0.040 + 2 x 0.040) GB."""
    name = "Qwen/Qwen2.5-VL-7B-Instruct"
    assert checkpoint_bytes(make_config(name)) == 4 * 3 * 8_292_166_656
    assert checkpoint_bytes(make_config(name, lora=16)) == 4 * (8_292_166_656 + 3 * 40_370_176)


def test_a_model_that_nobody_knows_is_a_warning() -> None:
    found = check_disk(make_config("some/other-model"))
    assert isinstance(found, Check)
    assert found.status == "warn"


@pytest.mark.parametrize("content", [b"", b"<html>", (10**9).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"])
def test_weights_that_are_none_are_told(content: bytes, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        check_disk(make_config(str(folder)))


def test_what_a_resumed_run_has_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checkpoints of 0.012 GB are kept. With one of them there, and room for one and a half, a resume may start."""

    class FakeUsage:
        free = 18_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: FakeUsage)
    config = make_config(str(model_folder(tmp_path / "model")), default_local_dir=str(tmp_path / "checkpoints"))
    found = run_check("disk", lambda: check_disk(config))
    assert (found.status, "HF_HOME" in found.remedy) == ("fail", True)
    (tmp_path / "checkpoints/global_step_20").mkdir(parents=True)
    assert "1 of 2 checkpoint(s) 0.012 GB" in str(check_disk(config))


def test_downloads_and_the_arrow_copy_need_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medix_verl.preflight.disk.hub_cache", lambda: tmp_path / "hub")
    config = make_config("Qwen/Qwen2.5-VL-7B-Instruct", default_local_dir=str(tmp_path / "c"), device="cuda")
    config.data.train_files = config.data.val_files = str(tmp_path / "data/train.parquet")
    sizes = {what: round(size, 1) for what, size, _ in needs(config)}
    # 2 bytes x 8.292e9; the judge's 4.022e9; the released data 24 GB, prepared and copied as Arrow.
    assert sizes == {
        "2 of 2 checkpoint(s)": 199.0, "model Qwen/Qwen2.5-VL-7B-Instruct": 16.6, "Arrow copy of the data": 24.0,
        "model Qwen/Qwen3-4B-Instruct-2507": 8.0, "data": 24.0,
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.parquet").write_bytes(bytes(10**6))
    (tmp_path / "datasets/parquet").mkdir(parents=True)
    (tmp_path / "datasets/parquet/x.arrow").write_bytes(bytes(2 * 10**6))  # as much as is copied
    assert not {"Arrow copy of the data", "data"} & {what for what, _, _ in needs(config)}


def test_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeUsage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: FakeUsage)
    found = check_disk(make_config(str(model_folder(tmp_path / "model"))))
    assert isinstance(found, Check)
    assert (found.status, bool(found.remedy)) == ("fail", True)


BEST: dict[str, tuple[dict[str, Any], str]] = {
    "every save is validated": ({}, "pass"),
    "some saves are not": ({"save_freq": 5}, "warn"),
    "nothing is validated": ({"test_freq": -1}, "warn"),
    "nothing is validated, and nobody asks": ({"test_freq": -1, "checkpoints": {"keep_best": False}}, "pass"),
    "another callback": ({"checkpoint_callback_class": "mine.Callback"}, "warn"),
    "none": ({"checkpoint_callback_class": None}, "warn"),
}


@pytest.mark.parametrize(("changes", "status"), BEST.values(), ids=BEST.keys())
def test_a_best_checkpoint_needs_steps_that_are_saved_and_validated(changes: dict[str, Any], status: str) -> None:
    found = check_best(make_config("m", **changes))
    assert (found.status if isinstance(found, Check) else "pass") == status


def test_verl_may_not_delete_the_best_one() -> None:
    with pytest.raises(ConfigError, match=r"medix\.checkpoints\.keep_last"):
        check_best(make_config("m", max_actor_ckpt_to_keep=3))
