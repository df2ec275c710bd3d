"""Preflight against configurations and model folders that would fail minutes into a run."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix.preflight import environment, training
from medix.preflight.check import Check, failed, run_check
from medix.run_config import compose_config

ROLLOUT = "actor_rollout_ref.rollout"


@pytest.fixture(scope="module")
def composed() -> Any:
    return compose_config("medix_cpu")


@pytest.fixture
def config(composed: Any) -> Any:
    return OmegaConf.create(OmegaConf.to_container(composed))


def status(name: str, result: Any) -> str:
    return run_check(name, lambda: result).status


def test_the_recipe_as_it_stands_passes(config: Any) -> None:
    assert training.check_batch_sizes(config) == "16 prompts x 8 responses on 1 process(es)"
    assert training.check_lengths(config) == "prompt 96 + response 40 within 192"
    assert training.check_load_format(config) == "auto"
    assert training.check_reward_manager(config) == "MedixRewardManager"
    # 0.5175 + 0.3375 + 0.045 + 0.10 = 1, so the effective weights are those configured.
    assert training.check_reward(config) == "llm_accuracy 0.5175, embed_accuracy 0.3375, modality 0.045, format 0.1"


BAD_SIZES: dict[str, dict[str, int]] = {
    "mini-batch does not divide the batch": {"actor_rollout_ref.actor.ppo_mini_batch_size": 5},
    "mini-batch larger than the batch": {"actor_rollout_ref.actor.ppo_mini_batch_size": 32},
    # 16 prompts x 8 responses = 128 in a process: veRL fails at the first update, after minutes.
    "micro-batch that does not divide a process's share": {"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 48},
    "log-probability micro-batch larger than a process's share": {f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 256},
    "mini-batch of none": {"actor_rollout_ref.actor.ppo_mini_batch_size": 0},
    "batch of none": {"data.train_batch_size": 0},
    "negative batch": {"data.train_batch_size": -16},
    "processes do not divide the responses": {"trainer.n_gpus_per_node": 3},
    "no process": {"trainer.n_gpus_per_node": 0},
    "no node": {"trainer.nnodes": 0},
    "a group of one": {f"{ROLLOUT}.n": 1},
}


@pytest.mark.parametrize("changes", BAD_SIZES.values(), ids=BAD_SIZES.keys())
def test_sizes_that_do_not_go_together_are_refused(changes: dict[str, int], config: Any) -> None:
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with pytest.raises(ConfigError):
        training.check_batch_sizes(config)


def test_the_dummy_load_format_is_refused(config: Any) -> None:
    OmegaConf.update(config, f"{ROLLOUT}.load_format", "dummy")
    with pytest.raises(ConfigError, match="pixel normalisation"):
        training.check_load_format(config)


def test_a_context_that_is_too_short_is_refused_with_the_length_needed(config: Any) -> None:
    OmegaConf.update(config, f"{ROLLOUT}.max_model_len", 135)
    with pytest.raises(ConfigError, match="max_model_len=136"):  # 96 + 40
        training.check_lengths(config)
    OmegaConf.update(config, f"{ROLLOUT}.max_model_len", None)
    assert status("lengths", training.check_lengths(config)) == "warn"


def test_another_reward_manager_and_the_old_reward_key_are_refused(config: Any) -> None:
    OmegaConf.update(config, "custom_reward_function", {"path": "mine.py", "name": "f"}, force_add=True)
    with pytest.raises(ConfigError, match=r"mine\.py"):
        training.check_reward_manager(config)
    OmegaConf.update(config, "reward.reward_manager.source", "register")
    with pytest.raises(ConfigError, match="MedixRewardManager"):
        training.check_reward_manager(config)


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"lm_accuracy": {"weight": 1}}, "llm_accuracy"),
        ({"format": {"weight": -1}}, "format"),
        ({name: {"weight": 0} for name in ("llm_accuracy", "embed_accuracy", "modality", "format")}, "above 0"),
    ],
    ids=["unknown component", "negative weight", "all switched off"],
)
def test_a_useless_reward_is_refused(components: dict[str, Any], message: str, config: Any) -> None:
    OmegaConf.update(config, "medix.reward.components", components, force_add=True)
    with pytest.raises(ConfigError, match=message):
        training.check_reward(config)


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    header = {"w": {"dtype": "BF16", "shape": [1000, 1000], "data_offsets": [0, 2_000_000]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(2_000_000))
    return folder


def test_a_model_folder_must_be_whole(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    assert "holds weights" in environment.check_model_folder(str(folder))
    (folder / "preprocessor_config.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json, \*\.safetensors"):
        environment.check_model_folder(str(folder))


@pytest.mark.parametrize("path", ["/absent/model", "./absent", "outputs/demo/tiny-vlm-absent", "absent"])
def test_a_missing_model_folder_says_how_to_make_one(path: str) -> None:
    with pytest.raises(ConfigError, match="medix tiny-vlm --out"):
        environment.check_model_folder(path)


def test_a_hub_name_is_passed_through() -> None:
    assert "hub name" in environment.check_model_folder("Qwen/Qwen2.5-VL-7B-Instruct")


def disk_config(folder: Path, **trainer: Any) -> Any:
    settings = {"max_actor_ckpt_to_keep": None, "total_training_steps": 40, "save_freq": 20, **trainer}
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": str(folder)}},
            "trainer": settings,
            "medix": {"run_dir": str(folder.parent / "not" / "yet")},
        }
    )


@pytest.mark.parametrize(
    ("trainer", "checkpoints"),
    [
        ({}, 2),  # steps 20 and 40
        ({"save_freq": 1}, 40),
        ({"save_freq": 15}, 3),  # steps 15 and 30, and veRL saves the last
        ({"save_freq": -1}, 0),
        ({"max_actor_ckpt_to_keep": 3, "save_freq": 1}, 3),
        ({"max_actor_ckpt_to_keep": 3, "save_freq": 20}, 2),
    ],
)
def test_room_is_reckoned_for_the_checkpoints_that_will_be_kept(
    trainer: dict[str, Any], checkpoints: int, tmp_path: Path
) -> None:
    found = environment.check_disk(disk_config(model_folder(tmp_path / "model"), **trainer))
    # 10^6 parameters x 4 bytes x (weights + two moments) = 0.012 GB a checkpoint, whatever the file's own precision.
    assert isinstance(found, str)
    assert f"about {0.012 * checkpoints:.2f} GB needed for {checkpoints} checkpoint(s)" in found


@pytest.mark.parametrize("content", [b"", b"<html>", (10**9).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"])
def test_weights_that_are_none_are_told(content: bytes, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        environment.check_disk(disk_config(folder))


def test_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeUsage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: FakeUsage)
    found = environment.check_disk(disk_config(model_folder(tmp_path / "model")))
    assert isinstance(found, Check)
    assert found.status == "fail"


def test_a_version_off_its_pin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.8.0" if name == "verl" else real(name))
    found = environment.check_versions()
    assert isinstance(found, Check)
    assert "verl 0.8.0 (pinned ==0.9.1)" in found.found


def test_a_check_passes_warns_or_fails_with_its_remedy() -> None:
    def refuse() -> str:
        raise ConfigError("a judge", "none", "start one")

    checks = [
        run_check("a", lambda: "fine"),
        run_check("b", lambda: Check("b", "warn", "w", "do")),
        run_check("c", refuse),
    ]
    assert [check.status for check in checks] == ["pass", "warn", "fail"]
    assert failed(checks) == [Check("c", "fail", "expected a judge; found none", "start one")]
    assert all(bool(check.remedy) == (check.status != "pass") for check in checks)
