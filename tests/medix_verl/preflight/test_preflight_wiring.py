"""Overrides under which veRL would call other code than ours, or read a setting of the reward nowhere."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.preflight.check import Check
from medix_verl.preflight.config import PLUGINS, check_plugins, check_reward_manager

pytestmark = pytest.mark.slow  # Hydra composes veRL's whole configuration


def test_the_recipe_as_it_stands_passes(config: Any) -> None:
    assert check_reward_manager(config) == "MedixRewardManager"
    assert isinstance(check_plugins(config), str)


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
        check_reward_manager(config)
    assert key in caught.value.found


@pytest.mark.parametrize("key", PLUGINS)
def test_other_plugins_than_ours_are_a_warning(key: str, config: Any) -> None:
    OmegaConf.update(config, key, None)
    found = check_plugins(config)
    assert isinstance(found, Check)
    assert (found.status, f"{key}=None" in found.found) == ("warn", True)
