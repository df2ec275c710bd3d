"""The YAML files compose against the schema of the installed veRL, with the values that they state."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.preflight import config as settings
from medix_verl.run_config import CONFIG_DIR, compose_config

pytestmark = pytest.mark.slow  # Hydra composes veRL's whole configuration each time

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(path.stem for path in CONFIG_DIR.glob("medix_*.yaml"))
ALGORITHMS = sorted(path.stem for path in (CONFIG_DIR / "algorithm").glob("*.yaml"))

ACTOR = "actor_rollout_ref.actor"
STATED: dict[str, dict[str, Any]] = {
    "grpo": {
        "algorithm.adv_estimator": "grpo",
        f"{ACTOR}.policy_loss.loss_mode": "vanilla",
        f"{ACTOR}.loss_agg_mode": "token-mean",
        "algorithm.filter_groups.enable": False,
        "trainer.v1.sampler.sampler_kwargs.filter_groups.enable": False,
    },
    "grpo_kl": {
        f"{ACTOR}.policy_loss.loss_mode": "vanilla",
        f"{ACTOR}.clip_ratio_high": 0.3,
        f"{ACTOR}.use_kl_loss": True,
        f"{ACTOR}.kl_loss_type": "low_var_kl",
        f"{ACTOR}.kl_loss_coef": 0.01,
    },
    "gspo": {
        "algorithm.adv_estimator": "grpo",
        f"{ACTOR}.policy_loss.loss_mode": "gspo",
        f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
        f"{ACTOR}.clip_ratio_low": 3e-4,
        f"{ACTOR}.clip_ratio_high": 4e-4,
    },
    "dapo": {
        f"{ACTOR}.policy_loss.loss_mode": "vanilla",
        f"{ACTOR}.clip_ratio_low": 0.2,
        f"{ACTOR}.clip_ratio_high": 0.28,
        "algorithm.filter_groups.enable": True,
        # veRL hands a custom sampler none of the filter settings: ours come through its own keywords.
        "trainer.v1.sampler.sampler_kwargs.filter_groups.enable": True,
        "trainer.v1.sampler.sampler_kwargs.train_batch_size": 16,
    },
}


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every leaf that a YAML file states, lists as they are, interpolations left out."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{prefix}{key}.")
        elif not (isinstance(value, str) and ("${" in value or value == "???")):
            found[prefix + str(key)] = value
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_composes_and_makes_sense(name: str) -> None:
    config = compose_config(name)
    assert settings.check_reward_manager(config) == "MedixRewardManager"
    assert settings.check_load_format(config) == "auto"
    assert "prompts x" in settings.check_batch_sizes(config)
    settings.check_lengths(config)
    assert OmegaConf.select(config, "trainer.use_v1") is True


@pytest.mark.parametrize(
    ("name", "expected"),
    [("medix_cpu", (0.999, 0.99, 1)), ("medix_7b", (0.99, 0.9, 3)), ("medix_30b", (0.99, -1.0, 3))],
    ids=["fp32: under 0.99 it stops at once", "bf16", "bf16 mixture of experts: warns only"],
)
def test_the_pearson_guard_fits_the_precision(name: str, expected: tuple[float, float, int]) -> None:
    watchdog = compose_config(name).medix.watchdog
    assert (watchdog.pearson_warn_below, watchdog.pearson_stop_below, watchdog.pearson_steps) == expected


def test_what_the_cpu_files_state_is_in_force() -> None:
    config = compose_config("medix_cpu")
    stated = yaml.safe_load((CONFIG_DIR / "hardware" / "cpu.yaml").read_text())
    stated.pop("defaults", None)
    for key, value in leaves(stated).items():
        assert OmegaConf.select(config, key) == value, key


def test_every_algorithm_has_its_row_here() -> None:
    assert set(ALGORITHMS) == set(STATED)


@pytest.mark.parametrize(("name", "values"), STATED.items(), ids=STATED.keys())
def test_an_algorithm_sets_what_it_states(name: str, values: dict[str, Any]) -> None:
    config = compose_config("medix_cpu", [f"algorithm={name}"])
    assert {key: OmegaConf.select(config, key) for key in values} == values


@pytest.mark.parametrize("preset", ["strict", "paper"])
def test_a_reward_preset_reaches_the_configuration(preset: str) -> None:
    config = compose_config("medix_cpu", [f"reward_preset={preset}"])
    assert config.medix.reward.preset == preset
    weights = [part.weight for part in config.medix.reward.components.values()]
    assert sum(weights) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "overrides", "named"),
    [
        ("medix_cpu", ["trainer.total_epoch=3"], "total_epoch"),
        ("medix_cpu", ["actor_rollout_ref.actor.clip_ratio_hi=0.3"], "clip_ratio_hi"),
        ("medix_cpu", ["medix.scorer.judge.modle=x"], "modle"),
        ("medix_cpu", ["medix.reward.components.embed_acuracy.weight=0"], "embed_acuracy"),
        ("medix_cpu", ["algorithm=ppo2"], "ppo2"),
        ("medix_cpu", ["reward_preset=lenient"], "lenient"),
        ("medix_cpu", ["data.seed=[1"], "[1"),
        ("medix_cpu", ["data.seed=${nowhere.at_all}"], "nowhere"),
        ("medix_cpu", ["reward=null"], "NoneType"),
        ("medix_70b_nowhere", [], "medix_70b_nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_key_that_does_not_fit_is_a_config_error_that_names_it(name: str, overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(name, overrides)
    assert named in caught.value.found


def test_one_composition_does_not_colour_the_next() -> None:
    compose_config("medix_cpu", ["algorithm=gspo"])
    assert OmegaConf.select(compose_config("medix_cpu"), f"{ACTOR}.policy_loss.loss_mode") == "vanilla"


def dry_run(run: Path, *overrides: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DRY_RUN": "1", "RUN": str(run), **knobs}
    command = ["bash", "recipes/medix/run_cpu.sh", *overrides]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)


def test_the_scripts_knobs_reach_the_configuration_and_a_dry_run_starts_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shown = dry_run(run, "data.seed=9", ALGO="gspo", STEPS="7", REWARD="paper", MODEL="/models/mine", SEED="4")
    assert shown.returncode == 0, shown.stderr
    config = yaml.safe_load(shown.stdout)
    assert config["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"] == "gspo"
    assert config["trainer"]["total_training_steps"] == 7
    assert config["medix"]["reward"]["preset"] == "paper"
    assert config["actor_rollout_ref"]["model"]["path"] == "/models/mine"
    assert config["data"]["train_files"] == f"{run}/data/train.parquet"
    assert config["data"]["seed"] == 9  # overrides come last and win
    assert not run.exists()


def test_an_unknown_algorithm_ends_the_script_with_one_message(tmp_path: Path) -> None:
    shown = dry_run(tmp_path / "run", ALGO="ppo2")
    assert shown.returncode == 2
    assert shown.stderr.startswith("error: ALGO is 'ppo2'.")
    assert "Traceback" not in shown.stderr
    assert "dapo" in shown.stderr
