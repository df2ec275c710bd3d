"""The YAML files compose against the schema of the installed veRL, with the values they state; a colocated judge."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError, MedixError
from medix_verl.preflight.scorers import check_colocated_judge
from medix_verl.run_config import CONFIG_DIR, compose_config
from reward_fns.scorers.service import ScorerService

pytestmark = pytest.mark.slow  # Hydra composes veRL's whole configuration each time


def test_the_demos_grpo_is_plain_and_dapo_filters_by_the_samplers_own_keywords() -> None:
    """The released algorithms, value by value: tests/recipes/test_against_the_paper.py."""
    assert {path.stem for path in (CONFIG_DIR / "algorithm").glob("*.yaml")} == {"grpo", "grpo_kl", "gspo", "dapo"}
    plain, dapo = (compose_config("medix_cpu", [f"algorithm={name}"]) for name in ("grpo", "dapo"))
    actor, sampler = plain.actor_rollout_ref.actor, dapo.trainer.v1.sampler.sampler_kwargs
    found = (plain.algorithm.adv_estimator, actor.policy_loss.loss_mode, actor.loss_agg_mode, actor.use_kl_loss)
    assert found == ("grpo", "vanilla", "token-mean", False)
    assert not plain.trainer.v1.sampler.sampler_kwargs.filter_groups.enable
    # veRL hands a custom sampler none of the filter settings.
    assert (sampler.filter_groups.enable, sampler.train_batch_size) == (True, 16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("medix_cpu", (0.999, 0.99, 1)), ("medix_7b", (0.99, 0.9, 3)), ("medix_30b", (0.99, -1.0, 3))],
    ids=["fp32: under 0.99 it stops at once", "bf16", "bf16 mixture of experts: warns only"],
)
def test_the_pearson_guard_fits_the_precision(name: str, expected: tuple[float, float, int]) -> None:
    watchdog = compose_config(name).medix.watchdog
    assert (watchdog.pearson_warn_below, watchdog.pearson_stop_below, watchdog.pearson_steps) == expected


@pytest.mark.parametrize(
    ("name", "override", "named"),
    [
        ("medix_cpu", "trainer.total_epoch=3", "total_epoch"),
        ("medix_cpu", "medix.scorer.judge.modle=x", "modle"),
        ("medix_cpu", "medix.reward.components.embed_acuracy.weight=0", "embed_acuracy"),
        ("medix_cpu", "algorithm=ppo2", "dapo"),  # Hydra lists what there is
        ("medix_cpu", "reward_preset=lenient", "lenient"),
        ("medix_cpu", "data.seed=[1", "[1"),
        ("medix_cpu", "data.seed=${nowhere.at_all}", "nowhere"),
        ("medix_cpu", "reward=null", "NoneType"),
        ("medix_70b_nowhere", "data.seed=1", "medix_70b_nowhere"),
    ],
)
def test_a_key_that_does_not_fit_is_a_config_error_that_names_it(name: str, override: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(name, [override])
    assert named in caught.value.problem


@pytest.fixture(scope="module")
def colocated() -> Any:
    """Composed once: it takes a second."""
    return compose_config("medix_cpu", ["judge=colocated", "reward.reward_model.model_path=outputs/smollm2"])


def test_one_switch_has_verl_serve_the_judge_and_the_client_ask_for_it(colocated: Any) -> None:
    model, judge = colocated.reward.reward_model, colocated.medix.scorer.judge
    assert (model.enable, model.enable_resource_pool, model.rollout.name) == (True, True, "vllm")
    assert (model.rollout.enable_sleep_mode, model.rollout.free_cache_engine) == (False, False)
    assert judge.model == model.model_path == "outputs/smollm2"
    assert list(judge.urls) == []
    assert judge.max_in_flight == model.rollout.max_num_seqs == 16
    ScorerService(OmegaConf.to_container(colocated.medix.scorer, resolve=True))  # refuses an option it does not know
    module = importlib.import_module(colocated.reward.custom_reward_function.path.removeprefix("pkg://"))
    with pytest.raises(RuntimeError, match="MedixRewardManager"):  # veRL wants the name, and must never score with it
        getattr(module, colocated.reward.custom_reward_function.name)()


PARTS = {
    "config.json": "{}",
    "tokenizer_config.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "model.safetensors": "\2\0\0\0\0\0\0\0{}",  # a header of two bytes, and no tensor
}
FAULTS: dict[str, tuple[dict[str, str | None], dict[str, Any], str | None]] = {
    # Files that are missing (None) or hold something else, settings, what the refusal names.
    "a whole folder": ({}, {}, None),
    **{f"no {name}": ({name: None}, {}, "has no ") for name in PARTS},
    "code of its own": ({"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["x.Mine", null]}}'}, {}, "auto_map"),
    "damaged": ({"tokenizer_config.json": "{"}, {}, "tokenizer_config"),
    "weights cut off": ({"model.safetensors": "\2"}, {}, "model.safetensors can not be read"),
    "no folder": ({}, {"reward.reward_model.model_path": "outputs/no-such-folder"}, "JUDGE_MODEL"),
    "no name for veRL": ({}, {"reward.custom_reward_function.path": None}, "custom_reward_function"),
    "no slots": ({}, {"reward.reward_model.enable_resource_pool": False}, "enable_resource_pool"),
    "a misspelt check": ({}, {"medix.judge_check": "never"}, "judge_check"),
}


@pytest.mark.parametrize(("files", "settings", "named"), FAULTS.values(), ids=FAULTS)
def test_what_a_colocated_judge_needs_is_looked_at_before_the_run(
    files: dict[str, str | None], settings: dict[str, Any], named: str | None, colocated: Any, tmp_path: Path
) -> None:
    for name, content in {**PARTS, **files}.items():
        if content is not None:
            (tmp_path / name).write_text(content)
    config = OmegaConf.create(OmegaConf.to_container(colocated))
    for key, value in {"reward.reward_model.model_path": str(tmp_path), **settings}.items():
        OmegaConf.update(config, key, value)
    if named is None:
        assert check_colocated_judge(config).status == "warn"  # no verdict was seen
        return
    with pytest.raises(MedixError, match=named):
        check_colocated_judge(config)
