"""Configurations for all tests of this folder: the CPU recipe as composed, which takes seconds, and a literal one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix_verl.run_config import compose_config

MakeConfig = Callable[..., Any]
RELEASED: dict[str, Any] = {
    "algorithm": {"use_kl_in_reward": False, "filter_groups": {"enable": False}},
    "data": {
        "max_prompt_length": 4352, "max_response_length": 4096, "train_batch_size": 512, "train_max_samples": -1,
        "train_files": "x", "val_files": "x",
    },
    "trainer": {
        "n_gpus_per_node": 8, "nnodes": 1, "device": "cuda", "default_local_dir": "/tmp/medix/not/yet",
        "total_training_steps": 40, "save_freq": 20, "test_freq": 10, "max_actor_ckpt_to_keep": None,
        "checkpoint_callback_class": "medix_verl.plugins.checkpoint_callback.MedixCheckpointCallback",
    },
    "medix": {"checkpoints": {}, "scorer": {"judge": {"urls": ["http://judge.example:8000"]}}},
    "reward": {
        "reward_model": {
            "enable": False, "model_path": "Qwen/Qwen3-4B-Instruct-2507",
            "rollout": {"gpu_memory_utilization": 0.85, "tensor_model_parallel_size": 2, "max_model_len": 8192},
        }
    },
    "actor_rollout_ref": {
        "model": {"path": "Qwen/Qwen2.5-VL-7B-Instruct", "lora_rank": 0, "enable_gradient_checkpointing": True},
        "actor": {
            "use_kl_loss": False, "ulysses_sequence_parallel_size": 1, "ppo_mini_batch_size": 128,
            "use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 16896, "ppo_micro_batch_size_per_gpu": 2,
            "fsdp_config": {
                "fsdp_size": -1, "model_dtype": "fp32", "param_offload": True, "optimizer_offload": True,
            },
        },
        "ref": {"fsdp_config": {"param_offload": True}},
        "rollout": {
            "gpu_memory_utilization": 0.6, "tensor_model_parallel_size": 2, "max_model_len": 8448,
            "free_cache_engine": True, "n": 5, "log_prob_use_dynamic_bsz": True,
            "log_prob_max_token_len_per_gpu": 33792, "log_prob_micro_batch_size_per_gpu": 4,
        },
    },
}  # fmt: skip
"""The released 7B setting, as far as the checks of sizes read it, on one node of eight."""


@pytest.fixture
def make_config() -> MakeConfig:
    """Return a function: {dotted path: value} -> the released setting with these changes."""

    def make(changes: dict[str, Any] | None = None) -> Any:
        config = OmegaConf.create(copy.deepcopy(RELEASED))
        for key, value in (changes or {}).items():
            OmegaConf.update(config, key, value, force_add=True)
        return config

    return make


@pytest.fixture(scope="session")
def composed_cpu() -> Any:
    return compose_config("medix_cpu", ["medix.run_dir=/tmp/run"])


@pytest.fixture
def config(composed_cpu: Any) -> Any:
    """A copy, to be changed at will."""
    changed = copy.deepcopy(composed_cpu)
    OmegaConf.set_struct(changed, False)
    return changed


@pytest.fixture
def _no_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child process that imports veRL is left out."""
    monkeypatch.setattr("medix_verl.preflight.machine.probe", lambda modules: {"failed": {}, "platform": "cpu"})
