"""Preflight against configurations and model folders that would fail minutes into a run."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError, MedixError
from medix_verl.preflight import config as settings
from medix_verl.preflight import machine, model
from medix_verl.preflight.check import Check, failed, run_check

pytestmark = pytest.mark.slow  # Hydra composes veRL's whole configuration

ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"


def test_the_recipe_as_it_stands_passes(config: Any) -> None:
    assert settings.check_batch_sizes(config) == "16 prompts x 8 responses on 1 process(es)"
    assert settings.check_lengths(config) == "prompt 96 + response 40 within 192"
    assert settings.check_load_format(config) == "auto"
    assert settings.check_reward_manager(config) == "MedixRewardManager"
    assert isinstance(settings.check_plugins(config), str)
    # 0.5175 + 0.3375 + 0.045 + 0.10 = 1, so the effective weights are those configured.
    assert settings.check_reward(config) == "llm_accuracy 0.5175, embed_accuracy 0.3375, modality 0.045, format 0.1"


def test_the_dummy_load_format_is_refused(config: Any) -> None:
    OmegaConf.update(config, f"{ROLLOUT}.load_format", "dummy")
    with pytest.raises(ConfigError, match="pixel normalisation"):
        settings.check_load_format(config)


def test_a_context_that_is_too_short_is_refused_with_the_length_needed(config: Any) -> None:
    OmegaConf.update(config, f"{ROLLOUT}.max_model_len", 135)
    with pytest.raises(ConfigError, match="max_model_len=136"):  # 96 + 40
        settings.check_lengths(config)
    OmegaConf.update(config, f"{ROLLOUT}.max_model_len", None)
    assert run_check("lengths", lambda: settings.check_lengths(config)).status == "warn"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        # Prompt 96 + response 40 = 136 within 192; the recipe batches 2048 tokens and cuts prompts where it must.
        ({f"{ROLLOUT}.enable_chunked_prefill": False, f"{ROLLOUT}.max_num_batched_tokens": 191}, "max_num_batched"),
        ({"actor_rollout_ref.actor.use_dynamic_bsz": True, f"{ACTOR}.ppo_max_token_len_per_gpu": 135}, "136"),
        ({f"{ROLLOUT}.log_prob_use_dynamic_bsz": True, f"{ROLLOUT}.log_prob_max_token_len_per_gpu": 135}, "log_prob"),
    ],
    ids=["vLLM could not take a prompt whole", "no sequence in an update", "no sequence in a log-probability pass"],
)
def test_a_batch_that_holds_no_whole_sequence_is_refused(changes: dict[str, Any], named: str, config: Any) -> None:
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with pytest.raises(ConfigError, match=named):
        settings.check_lengths(config)


def test_rollout_engines_must_fill_the_gpus(config: Any) -> None:
    assert settings.check_replicas(config) == "1 engine(s) of 1 GPU slot(s)"
    OmegaConf.update(config, "trainer.n_gpus_per_node", 6)
    OmegaConf.update(config, f"{ROLLOUT}.tensor_model_parallel_size", 4)
    with pytest.raises(ConfigError, match=r"one of \[1, 2, 3, 6\]"):
        settings.check_replicas(config)


def test_settings_of_the_guards_are_read_before_the_run(config: Any) -> None:
    assert settings.check_guards(config) == "a silence of 45 minutes ends the run"
    OmegaConf.update(config, "medix.filter", {"low": 0.01, "high": 0.99})
    with pytest.raises(ConfigError, match="algorithm=dapo"):
        settings.check_guards(config)
    OmegaConf.update(config, "algorithm.filter_groups.enable", True)
    assert settings.check_guards(config).endswith("groups kept with a mean between 0.01 and 0.99")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"medix.watchdog.stall_minutes": 30}, True),  # the old default: the hold of 30 minutes begins later
        ({"medix.watchdog.stall_minutes": 31}, True),  # 1800 s + 60 s for one try = 31 minutes
        ({"medix.watchdog.stall_minutes": 31.1}, False),
        ({"medix.scorer.hold_limit_s": 2640}, True),  # 2640 s + 60 s for one try = 45 minutes
        ({"medix.scorer.hold_limit_s": 2639}, False),
        ({"medix.scorer.judge.timeout_s": 900}, True),  # 1800 s + 900 s = 45 minutes
    ],
)
def test_a_silence_ends_no_run_before_the_scorers_name_the_outage(
    changes: dict[str, Any], refused: bool, config: Any
) -> None:
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    found = run_check("guards", lambda: settings.check_guards(config))
    assert (found.status, "stall_minutes=" in found.remedy) == (("fail", True) if refused else ("pass", False))


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
        settings.check_reward(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scorer.judge.prompt": "judge_paper.txt"}, "has no delimited fields"),  # under the strict preset
        ({"scorer.judge.prompt": "judge_paper.txt", "reward.components.llm_accuracy.verdict": "substring"},
         "has no delimited fields"),  # the embedder's veto is still read strictly
        ({"scorer.judge.prompt": "judge_paper.txt", "reward.components.llm_accuracy.verdict": "substring",
          "reward.components.embed_accuracy.veto": "none"}, ""),
        ({"reward.components.llm_accuracy.verdict": "substring"}, ""),
        ({"scorer.judge.prompt": "nowhere.txt"}, "There is no judge prompt"),
    ],
)  # fmt: skip
def test_a_judge_prompt_that_a_component_can_not_use_is_refused(
    changes: dict[str, Any], message: str, config: Any
) -> None:
    for key, value in changes.items():
        OmegaConf.update(config, f"medix.{key}", value, force_add=True)
    found = run_check("reward", lambda: settings.check_reward(config))
    assert (found.status, message in found.found) == ("fail" if message else "pass", True)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [10], "data_offsets": [0, 20]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(20))
    return tmp_path


def test_a_model_folder_must_be_whole(model_folder: Path) -> None:
    assert "holds weights" in model.check_model_folder(str(model_folder))
    (model_folder / "preprocessor_config.json").unlink()
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json, \*\.safetensors"):
        model.check_model_folder(str(model_folder))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", '{"model": {"vo', "can not be read"),
        ("config.json", "[]", "not a mapping"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}',
         r"has no model-2\.safetensors"),
        ("model.safetensors.index.json", '{"weight_map": ["a"]}', "names no weights"),
        ("model.safetensors.index.json", '{"weight_map": {"a": ["b"]}}', "has no"),
    ],
)  # fmt: skip
def test_a_download_that_was_cut_off_is_told(name: str, content: str, says: str, model_folder: Path) -> None:
    (model_folder / name).write_text(content)
    with pytest.raises(MedixError, match=says):
        model.check_model_folder(str(model_folder))


@pytest.mark.parametrize("content", [b"", b"<html>", (10**9).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"])
def test_weights_that_can_not_be_read_are_told(content: bytes, model_folder: Path) -> None:
    (model_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors can not be read"):
        model.check_model_folder(str(model_folder))


@pytest.mark.parametrize("path", ["/absent/model", "./absent", "outputs/demo/tiny-vlm-absent", "absent"])
def test_a_missing_model_folder_says_how_to_make_one(path: str) -> None:
    with pytest.raises(ConfigError, match=r"python -m examples.tiny_vlm --out"):
        model.check_model_folder(path)
    assert "hub name" in model.check_model_folder("Qwen/Qwen2.5-VL-7B-Instruct")


def test_a_version_off_its_pin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.8.0" if name == "verl" else real(name))
    found = machine.check_versions()
    assert isinstance(found, Check)
    assert "verl 0.8.0 (pinned ==0.9.1)" in found.found


def test_a_check_passes_warns_or_fails_with_its_remedy() -> None:
    def refuse() -> str:
        raise ConfigError("There is no judge.", "Start one.")

    def stumble() -> str:
        return f"{8 % None}"  # type: ignore[operator]

    checks = [
        run_check("a", lambda: "fine"),
        run_check("b", lambda: Check("warn", "w", "do")),
        run_check("c", refuse),
        run_check("d", stumble),
    ]
    assert [check.status for check in checks] == ["pass", "warn", "fail", "fail"]
    assert failed(checks)[0] == Check("fail", "There is no judge.", "Start one.", "c")
    assert failed(checks)[1].found.startswith("TypeError: unsupported operand")
    assert all(bool(check.remedy) == (check.status != "pass") for check in checks)


@pytest.mark.parametrize(
    ("rank", "target", "excluded", "expected"),
    [
        (0, "all-linear", None, "pass"),
        (8, "all-linear", None, "fail"),  # the image encoder's adapters would train, and never be rolled out
        (8, "all-linear", ".*merger.*", "fail"),
        (8, "all-linear", "*visual*", "fail"),  # no regular expression
        (8, "all-linear", ".*visual.*", "pass"),
        (8, ["q_proj", "v_proj"], None, "pass"),  # names that the image encoder does not have
    ],
)
def test_adapters_that_vllm_would_not_serve_are_refused(
    rank: int, target: Any, excluded: str | None, expected: str, config: Any
) -> None:
    config.actor_rollout_ref.model.update({"lora_rank": rank, "target_modules": target, "exclude_modules": excluded})
    assert run_check("adapters", lambda: settings.check_adapters(config)).status == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reward.reward_manager.source", "register"),
        ("reward.reward_manager.name", "naive"),  # what veRL looks up; module.name it does not
        ("reward.reward_manager.module.path", "pkg://evil"),
        ("reward.num_workers", 8),
        # The spellings of older veRL, whose keys are still there and are read by nobody.
        ("reward_model.reward_manager", "naive"),
        ("reward_model.enable", True),
        ("reward_model.enable", False),
        ("reward_model.rollout.dtype", "float16"),
        ("reward_model.reward_kwargs", {"overlong_buffer_cfg": {"len": 4}}),
        ("custom_reward_function.path", "mine.py"),
        ("sandbox_fusion.url", "http://127.0.0.1:1"),
    ],
)
def test_another_reward_than_ours_is_refused(key: str, value: Any, config: Any) -> None:
    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(ConfigError) as caught:
        settings.check_reward_manager(config)
    assert key in caught.value.found


@pytest.mark.parametrize("key", settings.PLUGINS)
def test_other_plugins_than_ours_are_a_warning(key: str, config: Any) -> None:
    OmegaConf.update(config, key, None)
    found = settings.check_plugins(config)
    assert isinstance(found, Check)
    assert (found.status, f"{key}=None" in found.found) == ("warn", True)
