"""Is it our code that veRL will call, and are the reward's settings where veRL looks for them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.check import Check

# veRL takes the class by `reward_manager.name`, not by `module.name`.
REWARD_MANAGER = {
    "reward.reward_manager.source": "importlib",
    "reward.reward_manager.name": "MedixRewardManager",
    "reward.reward_manager.module.path": "pkg://medix_verl.plugins.reward_manager",
    "reward.num_workers": 1,
}
PLUGINS = {
    "trainer.use_v1": True,
    "trainer.v1.sampler.custom_sampler.path": "pkg://medix_verl.plugins.replay_buffer",
    "trainer.v1.sampler.custom_sampler.name": "MedixReplayBuffer",
    "data.custom_cls.path": "pkg://medix_verl.plugins.dataset",
    "data.custom_cls.name": "MedixDataset",
    "actor_rollout_ref.rollout.agent.default_agent_loop": "medix_agent",
}
IGNORED = ("reward_model", "custom_reward_function", "sandbox_fusion")
"""Old places of what stands below `reward` today. veRL 0.9.1 still has the keys; its PPO trainer reads none of them."""


def check_reward_manager(config: Any) -> str:
    """That the reward in force is ours, and that no setting of a reward goes unread.

    Raises:
        ConfigError: naming the keys.
    """
    if others := _others(config, REWARD_MANAGER):
        raise ConfigError(
            "reward.reward_manager to be MedixRewardManager, in one worker",
            ", ".join(others),
            "compose from recipes/medix/config and do not override reward.reward_manager or reward.num_workers",
        )
    if unread := [leaf for name in IGNORED for leaf in _leaves(config.get(name), name)]:
        raise ConfigError(
            f"nothing under the old top-level keys {', '.join(IGNORED)}, which veRL 0.9.1 does not read",
            ", ".join(unread),
            "write it below `reward.`, e.g. reward.reward_model.enable; a reward of your own is a component: "
            "medix.reward.components.NAME={path: FILE:FUNCTION, weight: W}",
        )
    return "MedixRewardManager"


def check_plugins(config: Any) -> str | Check:
    """That the other places at which veRL takes code are ours: a run without them trains, but is watched less."""
    if others := _others(config, PLUGINS):
        found = f"{', '.join(others)}: guards on the reward and telemetry are lost, a failed scorer stops no run"
        return Check("plugins", "warn", found, "leave these keys as the recipe has them")
    return "dataset, agent loop and replay buffer are ours"


def _others(config: Any, ours: Mapping[str, object]) -> list[str]:
    from omegaconf import OmegaConf

    found = {key: OmegaConf.select(config, key) for key in ours}
    return [f"{key}={value}" for key, value in found.items() if value != ours[key]]


def _leaves(value: Any, key: str) -> Iterator[str]:
    """`key=value` of everything below that is set."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _leaves(below, f"{key}.{name}")
    elif value is not None:
        yield f"{key}={value}"
