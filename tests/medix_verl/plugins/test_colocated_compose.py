"""`judge=colocated`: what veRL is told, what the judge client is told, and what preflight refuses."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError, DataError
from medix_verl.preflight.scorers import check_colocated_judge
from medix_verl.run_config import compose_config
from reward_fns.scorers.service import ScorerService

pytestmark = pytest.mark.slow  # Hydra composes veRL's whole configuration each time


def make_judge(folder: Path) -> Path:
    """A folder that looks like a chat model; nothing opens its weights."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def composed() -> Any:
    """Composed once: it takes a second."""
    return compose_config("medix_cpu", ["judge=colocated", "reward.reward_model.model_path=outputs/smollm2"])


@pytest.fixture
def config(composed: Any, tmp_path: Path) -> Any:
    """A copy to change, with a whole judge folder."""
    copy = OmegaConf.create(OmegaConf.to_container(composed))
    copy.reward.reward_model.model_path = str(make_judge(tmp_path / "judge"))
    return copy


def test_the_switch_is_off_unless_asked_for() -> None:
    config = compose_config("medix_cpu")
    assert config.reward.reward_model.enable is False
    assert config.reward.custom_reward_function.path is None
    assert list(config.medix.scorer.judge.urls) == ["http://127.0.0.1:8085"]
    assert config.medix.scorer.judge.model == "rule-judge"


def test_one_switch_has_verl_serve_the_model_and_the_client_ask_for_it(composed: Any) -> None:
    model, judge = composed.reward.reward_model, composed.medix.scorer.judge
    assert (model.enable, model.enable_resource_pool, model.rollout.name) == (True, True, "vllm")
    assert model.rollout.tensor_model_parallel_size == model.n_gpus_per_node == 1
    assert (model.rollout.enable_sleep_mode, model.rollout.free_cache_engine) == (False, False)
    assert model.rollout.dtype == "float32"
    assert judge.model == model.model_path == "outputs/smollm2"
    assert list(judge.urls) == []
    assert judge.max_in_flight == model.rollout.max_num_seqs == 16
    ScorerService(OmegaConf.to_container(composed.medix.scorer, resolve=True))  # refuses an option it does not know


def test_the_switch_goes_with_other_choices() -> None:
    config = compose_config(
        "medix_cpu",
        ["judge=colocated", "algorithm=dapo", "reward_preset=paper", "trainer.n_gpus_per_node=2",
         "reward.reward_model.model_path=m", "medix.scorer.judge.max_in_flight=4"],
    )  # fmt: skip
    assert config.algorithm.filter_groups.enable is True  # veRL allows it only with slots of the judge's own
    assert config.medix.reward.preset == "paper"
    assert config.medix.scorer.judge.max_in_flight == 4
    slots = config.trainer.n_gpus_per_node + config.reward.reward_model.n_gpus_per_node
    assert config.ray_kwargs.ray_init.num_gpus >= slots


def test_the_name_that_makes_verl_call_the_reward_manager_can_be_imported_and_never_scores(composed: Any) -> None:
    module = importlib.import_module(composed.reward.custom_reward_function.path.removeprefix("pkg://"))
    with pytest.raises(RuntimeError, match="MedixRewardManager"):
        getattr(module, composed.reward.custom_reward_function.name)()


def test_a_whole_folder_is_a_warning_because_no_verdict_was_seen(config: Any) -> None:
    check = check_colocated_judge(config)
    assert check.status == "warn"
    assert "weights, tokenizer and chat template" in check.found
    assert config.medix.judge_check == "stop"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(name: str, config: Any) -> None:
    (Path(config.reward.reward_model.model_path) / name).unlink()
    with pytest.raises(ConfigError, match=r"The judge in .* has no"):
        check_colocated_judge(config)


@pytest.mark.parametrize("path", [None, "rule-judge", "outputs/no-such-folder"])
def test_no_folder_is_refused_with_the_knob_to_turn(path: str | None, config: Any) -> None:
    config.reward.reward_model.model_path = path
    with pytest.raises(ConfigError) as error:
        check_colocated_judge(config)
    assert "JUDGE_MODEL" in error.value.fix


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"auto_map": {"AutoTokenizer": ["code.Mine", null]}}', "auto_map"), ("{", "can not be read")],
)
def test_a_tokenizer_with_code_or_damage_is_refused(content: str, message: str, config: Any) -> None:
    (Path(config.reward.reward_model.model_path) / "tokenizer_config.json").write_text(content)
    with pytest.raises((ConfigError, DataError), match=message):
        check_colocated_judge(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reward.custom_reward_function.path", None),
        ("reward.reward_model.enable_resource_pool", False),
        ("medix.judge_check", "never"),
    ],
)
def test_settings_that_can_not_be_are_refused(key: str, value: object, config: Any) -> None:
    OmegaConf.update(config, key, value)
    with pytest.raises(ConfigError):
        check_colocated_judge(config)
