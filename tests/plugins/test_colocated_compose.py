"""`judge=colocated`: what veRL is told, what the judge client is told, and what preflight refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix.preflight.colocated import check_colocated_judge
from medix.run_config import compose_config
from medix.scorer.service import ScorerService


def make_judge(folder: Path) -> Path:
    """A folder that looks like a chat model; nothing opens its weights."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def colocated(model: Path | str, *overrides: str) -> Any:
    return compose_config("medix_cpu", ["judge=colocated", f"reward.reward_model.model_path={model}", *overrides])


def test_the_switch_is_off_unless_asked_for() -> None:
    config = compose_config("medix_cpu")
    assert config.reward.reward_model.enable is False
    assert config.reward.custom_reward_function.path is None
    assert list(config.medix.scorer.judge.urls) == ["http://127.0.0.1:8085"]
    assert config.medix.scorer.judge.model == "rule-judge"


def test_one_switch_has_verl_serve_the_model_and_the_client_ask_for_it() -> None:
    config = colocated("outputs/smollm2")
    model, judge = config.reward.reward_model, config.medix.scorer.judge
    assert (model.enable, model.enable_resource_pool, model.rollout.name) == (True, True, "vllm")
    assert model.rollout.tensor_model_parallel_size == model.n_gpus_per_node == 1
    assert (model.rollout.enable_sleep_mode, model.rollout.free_cache_engine) == (False, False)
    assert judge.model == model.model_path == "outputs/smollm2"
    assert list(judge.urls) == []
    assert judge.max_in_flight == model.rollout.max_num_seqs == 16
    ScorerService(OmegaConf.to_container(config.medix.scorer, resolve=True))  # refuses an option it does not know


def test_the_cpu_profile_has_slots_for_trainer_and_judge_and_no_half_precision() -> None:
    config = colocated("outputs/smollm2", "trainer.n_gpus_per_node=2")
    assert (
        config.ray_kwargs.ray_init.num_gpus
        >= config.trainer.n_gpus_per_node + config.reward.reward_model.n_gpus_per_node
    )
    assert config.reward.reward_model.rollout.dtype == "float32"


def test_another_engine_or_reward_survives_beside_the_switch() -> None:
    config = colocated("m", "algorithm=dapo", "reward_preset=paper", "medix.scorer.judge.max_in_flight=4")
    assert config.algorithm.filter_groups.enable is True  # veRL allows it only with slots of the judge's own
    assert config.medix.reward.preset == "paper"
    assert config.medix.scorer.judge.max_in_flight == 4


def test_the_name_that_makes_verl_call_the_reward_manager_can_be_imported_and_never_scores() -> None:
    path = colocated("m").reward.custom_reward_function.path
    module = __import__(path.removeprefix("pkg://"), fromlist=["compute_score"])
    with pytest.raises(RuntimeError, match="MedixRewardManager"):
        module.compute_score()


def test_a_whole_folder_is_a_warning_because_no_verdict_was_seen(tmp_path: Path) -> None:
    check = check_colocated_judge(colocated(make_judge(tmp_path / "judge")))
    assert check.status == "warn"
    assert "weights, tokenizer and chat template" in check.found


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(name: str, tmp_path: Path) -> None:
    folder = make_judge(tmp_path / "judge")
    (folder / name).unlink()
    with pytest.raises(ConfigError, match="whole chat model"):
        check_colocated_judge(colocated(folder))


@pytest.mark.parametrize("path", ["null", "rule-judge", "outputs/no-such-folder"])
def test_no_folder_is_refused_with_the_knob_to_turn(path: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_colocated_judge(colocated(path))
    assert "JUDGE_MODEL" in error.value.fix


def test_code_in_the_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_judge(tmp_path / "judge")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.Mine", None]}}))
    with pytest.raises(ConfigError, match="auto_map"):
        check_colocated_judge(colocated(folder))


def test_a_judge_that_verl_would_never_ask_is_refused(tmp_path: Path) -> None:
    folder = make_judge(tmp_path / "judge")
    with pytest.raises(ConfigError, match="custom_reward_function"):
        check_colocated_judge(colocated(folder, "reward.custom_reward_function.path=null"))
    with pytest.raises(ConfigError, match="slots of its own"):
        check_colocated_judge(colocated(folder, "reward.reward_model.enable_resource_pool=false"))
