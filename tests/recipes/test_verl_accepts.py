"""What veRL checks when a run starts, and what it asserts only after minutes of loading, for every recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import DictConfig

pytestmark = pytest.mark.slow  # veRL is imported

MODELS = ("medix_2b", "medix_3b", "medix_7b", "medix_8b", "medix_30b")
EXTERNAL, TWO_NODES = "judge=external", "trainer.nnodes=2"
ARRANGEMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{f"{name} as it stands": (name, ()) for name in MODELS},
    **{f"{name}, eight train": (name, ("hardware=gpu_8", EXTERNAL)) for name in MODELS},
    "7b, four and four": ("medix_7b", ("hardware=gpu_4_judge_4",)),
    "7b, seven and one": ("medix_7b", ("hardware=gpu_7_judge_1",)),
    "7b, seven and one on two nodes": ("medix_7b", ("hardware=gpu_7_judge_1", TWO_NODES)),
    "30b, two nodes": ("medix_30b", ("hardware=gpu_8", EXTERNAL, TWO_NODES)),
    "8b, released GRPO": ("medix_8b", ("hardware=gpu_8", EXTERNAL, "algorithm=grpo_kl")),
    "3b, one GPU of 24 GB": ("medix_3b", ("hardware=gpu_24gb", EXTERNAL)),
    "7b, LoRA": ("medix_7b", ("+lora=adapter",)),
}


Compose = Callable[..., DictConfig]


@pytest.fixture(params=ARRANGEMENTS)
def config(request: pytest.FixtureRequest, composed: Compose) -> DictConfig:
    """A copy: veRL writes into the configuration it checks."""
    name, overrides = ARRANGEMENTS[request.param]
    return composed(name, *overrides).copy()


def test_the_checks_of_verls_own_start_pass(config: DictConfig) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    # For adapters the check imports vLLM, to learn which ranks it serves: it has served 64 all along.
    assert config.actor_rollout_ref.model.lora_rank in (0, 64)
    config.actor_rollout_ref.model.lora_rank = 0
    assert not need_critic(config)
    assert need_reference_policy(config) == config.actor_rollout_ref.actor.use_kl_loss
    validate_config(config, need_reference_policy(config), use_critic=False)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.engine.strategy == actor.strategy == "fsdp2"
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    omega_conf_to_dataclass(config.algorithm)
    if config.reward.reward_model.enable:
        omega_conf_to_dataclass(config.reward.reward_model)


def pools(config: DictConfig) -> dict[str, list[int]]:
    """GPUs by node of each pool, as veRL's trainer lays them out."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    trainer: Any = object.__new__(get_trainer_cls(config.trainer.v1.trainer_mode))
    trainer.config = config
    trainer._init_resource_pool_mgr()
    assert trainer._resolve_filter_groups_metric() == ("reward" if config.algorithm.filter_groups.enable else None)
    return dict(trainer.resource_pool_manager.resource_pool_spec)


def test_pools_fit_the_nodes_and_replicas_fit_the_pools(config: DictConfig) -> None:
    found = pools(config)
    nodes = len(found["global_pool"])
    assert [sum(gpus) for gpus in zip(*found.values(), strict=True)] == [sum(p[0] for p in found.values())] * nodes
    assert sum(pool[0] for pool in found.values()) in (1, 8)
    # `split_resource_pool` and the replicas of one node: tensor parallelism never spans nodes here.
    assert found["global_pool"][0] % config.actor_rollout_ref.rollout.tensor_model_parallel_size == 0
    judge = config.reward.reward_model
    assert judge.enable == ("reward_pool" in found)
    if judge.enable:
        assert found["reward_pool"][0] % judge.rollout.tensor_model_parallel_size == 0
        assert config.reward.custom_reward_function.path  # without one veRL never calls the reward manager


def test_an_updates_responses_divide_among_the_processes(config: DictConfig) -> None:
    """`train_mini_batch` asserts it in the first update; `_balance_batch` would pad a batch that is no multiple."""
    processes = config.trainer.nnodes * config.trainer.n_gpus_per_node
    actor, n = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout.n
    assert actor.ulysses_sequence_parallel_size == 1  # data-parallel size = processes
    assert actor.ppo_mini_batch_size * n % processes == 0
    assert config.data.train_batch_size == 4 * actor.ppo_mini_batch_size  # four updates a step, as released
    # A sequence of full length has to fit a micro-batch, and vLLM has to take it whole.
    longest = config.data.max_prompt_length + config.data.max_response_length
    assert longest <= config.actor_rollout_ref.rollout.max_model_len
    assert longest <= config.actor_rollout_ref.rollout.max_num_batched_tokens  # chunked prefill is off
    assert longest <= actor.ppo_max_token_len_per_gpu
    assert longest <= config.actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu


def test_where_six_train_only_the_batch_differs_from_the_released_one(composed: Compose) -> None:
    """640 is no multiple of 6; 630 is, and 504 prompts are 1.6 % fewer than 512."""
    default, alone = composed("medix_7b"), composed("medix_7b", "hardware=gpu_8", EXTERNAL)
    assert 128 * 5 % 6 != 0
    assert (default.data.train_batch_size, default.actor_rollout_ref.actor.ppo_mini_batch_size) == (504, 126)
    changed = [
        key
        for key in default.actor_rollout_ref.actor
        if default.actor_rollout_ref.actor[key] != alone.actor_rollout_ref.actor[key]
    ]
    assert changed == ["ppo_mini_batch_size"]
    assert round(100 * (1 - 504 / 512), 1) == 1.6


def test_the_bf16_optimizer_is_what_verl_builds(composed: Compose) -> None:
    pytest.importorskip("torchao")  # in the GPU profile only
    import torch
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config.optimizer import build_optimizer

    options = omega_conf_to_dataclass(composed("medix_30b").actor_rollout_ref.actor.optim)
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))], options)
    assert (type(optimizer).__name__, optimizer.bf16_stochastic_round) == ("_AdamW", True)
