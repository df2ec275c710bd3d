"""Every value that was in force in the released runs, against what the recipes compose to on the installed veRL.

The rows are those of part 2 of the project's notes on the released code: its table (a column a run), its "Common" and
"Inherited" lists, and its key map. What veRL has no key for, and what differs on purpose, is in
recipes/medix/README.md.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from medix_verl.mean_band import MeanBand
from medix_verl.training.checkpoints import CheckpointOptions
from medix_verl.training.watch import WatchdogOptions

pytestmark = pytest.mark.slow  # Hydra composes veRL's whole configuration each time, and veRL is imported

AR, ACTOR = "actor_rollout_ref", "actor_rollout_ref.actor"
ROLLOUT, REF, OPTIM, FSDP = f"{AR}.rollout", f"{AR}.ref", f"{ACTOR}.optim", f"{ACTOR}.fsdp_config"

COMMON: dict[str, Any] = {
    # "Common (scripts)"
    "data.max_prompt_length": 4352,
    "data.max_response_length": 4096,
    f"{ROLLOUT}.max_num_batched_tokens": 4352 + 4096,
    "trainer.total_epochs": 2,
    "trainer.log_val_generations": 15,
    "medix.validation_samples": 15,  # the same with their images
    "trainer.n_gpus_per_node": 8,
    "trainer.nnodes": 1,
    # "Inherited": data
    "data.train_batch_size": 512,  # rollout_batch
    "data.val_batch_size": 1024,
    "data.shuffle": True,
    "data.seed": 1,
    "medix.prepare.min_pixels": 262_144,
    # "Inherited": rollout and validation sampling
    f"{ROLLOUT}.n": 5,
    f"{ROLLOUT}.temperature": 1.0,
    f"{ROLLOUT}.top_p": 1.0,
    f"{ROLLOUT}.top_k": -1,
    f"{ROLLOUT}.seed": 1,
    f"{ROLLOUT}.val_kwargs.n": 1,
    f"{ROLLOUT}.val_kwargs.temperature": 0.6,
    f"{ROLLOUT}.val_kwargs.top_p": 0.95,
    f"{ROLLOUT}.val_kwargs.do_sample": True,  # veRL is greedy without
    f"{ROLLOUT}.gpu_memory_utilization": 0.6,
    f"{ROLLOUT}.max_model_len": 8448,
    # "Inherited": updates
    f"{ACTOR}.ppo_mini_batch_size": 128,  # global_batch, in prompts
    f"{ACTOR}.ppo_epochs": 1,
    f"{ACTOR}.clip_ratio_c": 3.0,  # "dual 3.0"
    f"{ACTOR}.use_dynamic_bsz": True,
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": 2,
    f"{ACTOR}.ppo_max_token_len_per_gpu": 2 * 8448,
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 4,
    f"{ROLLOUT}.log_prob_max_token_len_per_gpu": 4 * 8448,
    f"{ROLLOUT}.log_prob_use_dynamic_bsz": True,
    f"{REF}.log_prob_max_token_len_per_gpu": 4 * 8448,
    f"{REF}.log_prob_use_dynamic_bsz": True,
    f"{ACTOR}.ulysses_sequence_parallel_size": 1,
    f"{ACTOR}.freeze_vision_tower": False,  # "vision tower trained"
    f"{ACTOR}.entropy_coeff": 0,
    f"{AR}.model.use_remove_padding": True,  # "padding_free"
    f"{AR}.model.enable_gradient_checkpointing": True,
    f"{AR}.model.lora_rank": 0,
    # "Inherited": optimizer
    f"{OPTIM}.lr": 1e-6,
    f"{OPTIM}.lr_scheduler_type": "constant",
    f"{OPTIM}.lr_warmup_steps_ratio": 0.0,
    f"{OPTIM}.lr_warmup_steps": -1,
    f"{OPTIM}.betas": [0.9, 0.999],
    f"{OPTIM}.weight_decay": 0.01,
    f"{OPTIM}.clip_grad": 1.0,
    # "Inherited": sharding and offload; "mp dtypes bf16/fp32/fp32"
    f"{FSDP}.reshard_after_forward": True,  # full shard
    f"{FSDP}.fsdp_size": -1,
    f"{FSDP}.param_offload": True,
    f"{FSDP}.optimizer_offload": True,
    f"{REF}.fsdp_config.param_offload": True,
    f"{FSDP}.mixed_precision": {"param_dtype": "bf16", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
    # "Inherited": trainer
    "trainer.test_freq": 5,
    "medix.checkpoints.keep_last": 3,  # save_limit, which keeps the best as well
    "medix.checkpoints.keep_best": True,
    "medix.checkpoints.mean": "rows",  # one mean over all held-out rows says which is best
    "trainer.val_before_train": True,
    # "All five use the GRPO advantage"; KL is in no reward
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "algorithm.rollout_correction.bypass_mode": False,  # old probabilities are the actor's, as released
    f"{AR}.model.trust_remote_code": False,
    # part 1: the released judge
    "reward.reward_model.model_path": "Qwen/Qwen3-4B-Instruct-2507",
}
FP32 = {f"{FSDP}.model_dtype": "fp32", f"{OPTIM}.optimizer_impl": "torch.optim", f"{OPTIM}.optimizer": "AdamW"}
BF16 = {  # row "dtype/optim", 30B: bf16, adamw_bf16 with Kahan summation; the nearest that veRL can load
    f"{FSDP}.model_dtype": "bf16",
    f"{OPTIM}.optimizer_impl": "torchao.optim",
    f"{OPTIM}.optimizer": "_AdamW",
    f"{OPTIM}.override_optimizer_config": {"bf16_stochastic_round": True},
}
TOKEN = {f"{ACTOR}.policy_loss.loss_mode": "vanilla", f"{ACTOR}.loss_agg_mode": "token-mean"}
NO_KL = {f"{ACTOR}.use_kl_loss": False}
NO_FILTER = {"algorithm.filter_groups.enable": False, "trainer.v1.sampler.sampler_kwargs.filter_groups.enable": False}
DAPO = {  # rows "clip", "KL", "online_filtering"
    **TOKEN,
    **NO_KL,
    f"{ACTOR}.clip_ratio_low": 0.2,
    f"{ACTOR}.clip_ratio_high": 0.28,
    "algorithm.filter_groups.enable": True,
    "algorithm.filter_groups.metric": "reward",  # "overall"
    "trainer.v1.sampler.sampler_kwargs.filter_groups.enable": True,
    "trainer.v1.sampler.sampler_kwargs.max_filtered_batches": 4,  # max_try_make_batch 20: see below
}
GSPO = {
    **NO_KL,
    **NO_FILTER,
    f"{ACTOR}.policy_loss.loss_mode": "gspo",  # gspo_token
    f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",  # avg "seq"
    f"{ACTOR}.clip_ratio_low": 3e-4,
    f"{ACTOR}.clip_ratio_high": 4e-4,
}
GRPO = {
    **TOKEN,
    **NO_FILTER,
    f"{ACTOR}.clip_ratio_low": 0.2,
    f"{ACTOR}.clip_ratio_high": 0.3,  # inherited
    f"{ACTOR}.use_kl_loss": True,
    f"{ACTOR}.kl_loss_type": "low_var_kl",
    f"{ACTOR}.kl_loss_coef": 0.01,
}
TP = f"{ROLLOUT}.tensor_model_parallel_size"


def model(name: str, patch: int, tensor_parallel: int = 2) -> dict[str, Any]:
    return {f"{AR}.model.path": f"Qwen/{name}", TP: tensor_parallel, "data.image_patch_size": patch}


RUNS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "2B dapo": ("medix_2b", (), {**model("Qwen3-VL-2B-Instruct", 16), **DAPO, **FP32}),
    '7B "grpo"': ("medix_7b", (), {**model("Qwen2.5-VL-7B-Instruct", 14), **GSPO, **FP32}),
    "8B dapo": ("medix_8b", (), {**model("Qwen3-VL-8B-Instruct", 16), **DAPO, **FP32}),
    "8B grpo": ("medix_8b", ("algorithm=grpo_kl",), {**model("Qwen3-VL-8B-Instruct", 16), **GRPO, **FP32}),
    # The script names -Thinking, the model card -Instruct: see the README.
    "30B dapo": ("medix_30b", (), {**model("Qwen3-VL-30B-A3B-Instruct", 16, 8), **DAPO, **BF16}),
    # Not in the paper: the 7B run's settings.
    "3B": ("medix_3b", (), {**model("Qwen2.5-VL-3B-Instruct", 14), **GSPO, **FP32}),
}
ALONE = ("hardware=gpu_8", "judge=external")
"""As released: eight GPUs train, and the judge has others."""


Compose = Callable[..., DictConfig]


def plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@pytest.mark.parametrize("run", RUNS)
def test_every_effective_value(run: str, composed: Compose) -> None:
    name, overrides, own = RUNS[run]
    config, expected = composed(name, *ALONE, *overrides), {**COMMON, **own}
    assert {key: plain(OmegaConf.select(config, key)) for key in expected} == expected


# Released value and ours, of what changes no sample and no update: recipes/medix/README.md has the reasons.
DEVIATIONS: dict[str, tuple[Any, Any]] = {
    "trainer.save_freq": (5, 10),
    f"{ROLLOUT}.enable_chunked_prefill": (False, True),
    f"{ROLLOUT}.engine_kwargs.vllm.mm_processor_cache_gb": (0, None),
}


def test_the_deviations_are_those_that_are_stated(composed: Compose) -> None:
    config = composed("medix_7b", *ALONE)
    assert {key: OmegaConf.select(config, key) for key in DEVIATIONS} == {
        key: ours for key, (_, ours) in DEVIATIONS.items()
    }


def test_the_experts_kernel_survives_a_weight_sync(composed: Compose) -> None:
    assert composed("medix_30b").actor_rollout_ref.rollout.engine_kwargs.vllm.moe_backend == "triton"
    assert "moe_backend" not in composed("medix_8b").actor_rollout_ref.rollout.engine_kwargs.vllm


def test_an_epoch_has_as_many_steps_as_released(composed: Compose) -> None:
    """51,335 rows // 512 = 100 steps; two epochs of them are the released 200, and nothing else bounds the run."""
    config = composed("medix_7b", *ALONE)
    assert 51_335 // config.data.train_batch_size * config.trainer.total_epochs == 200
    assert config.trainer.total_training_steps is None


def test_the_limit_on_filtered_groups_is_the_released_one(composed: Compose) -> None:
    """Released: 512 of at most 20 x 128 generated prompts have to be kept, 20 %, or the run ends. Here 512 have to be
    kept before more than 4 x 512 are filtered out: 512 / (512 + 2,048) = 20 %.
    """
    config = composed("medix_8b", *ALONE)
    kept = config.data.train_batch_size
    filtered = kept * config.trainer.v1.sampler.sampler_kwargs.max_filtered_batches
    assert kept / (20 * config.actor_rollout_ref.actor.ppo_mini_batch_size) == kept / (kept + filtered) == 0.2


# What our own code reads under `medix`. The blocks that a dataclass reads refuse an unknown key by themselves.
OURS = {
    "run_dir": "",
    "data_dir": "",
    "prepare": dict.fromkeys(("min_pixels", "max_pixels")),
    "validation_samples": 0,
    "reward": {},
    "scorer": {},
    **{
        block: dict.fromkeys(field.name for field in dataclasses.fields(options))
        for block, options in {
            "watchdog": WatchdogOptions,
            "checkpoints": CheckpointOptions,
            "filter": MeanBand,
        }.items()
    },
}
# Free-form by design: what stands there is read by vLLM, the optimizer or our own code.
FREE = (
    "medix.reward",
    "medix.scorer",
    f"{ROLLOUT}.engine_kwargs.vllm",
    f"{OPTIM}.override_optimizer_config",
    f"{FSDP}.mixed_precision",
    "ray_kwargs.ray_init",
    "trainer.v1.sampler.sampler_kwargs",
)


def strangers(config: DictConfig, schema: DictConfig, path: str = "") -> list[str]:
    """Keys that neither the schema knows nor what veRL hands that block to: a dataclass, or `ray.init`."""
    import ray
    from hydra.utils import get_class

    target = config.get("_target_")
    fields = {field.name for field in dataclasses.fields(get_class(target))} if target else set()
    if path == "ray_kwargs.ray_init.":
        fields = set(inspect.signature(ray.init).parameters)
    found = []
    for key in config:
        where = f"{path}{key}"
        if where in FREE or OmegaConf.is_missing(config, key):
            continue
        if key not in schema:
            found += [] if key in fields else [where]
        elif isinstance(config[key], DictConfig) and isinstance(schema[key], DictConfig):
            found += strangers(config[key], schema[key], f"{where}.")
    return found


@pytest.fixture(scope="module")
def schema() -> DictConfig:
    """veRL's own configuration, and the keys under `medix` that are read."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return OmegaConf.merge({"medix": OURS}, compose("ppo_trainer"))  # type: ignore[return-value]


@pytest.mark.parametrize("run", RUNS)
def test_every_key_that_the_yaml_files_set_is_read(run: str, schema: DictConfig, composed: Compose) -> None:
    """Hydra refuses an unknown key on the command line, but merges one from a file without a word."""
    name, overrides, _own = RUNS[run]
    assert strangers(composed(name, *ALONE, *overrides), schema) == []


def test_a_key_that_nobody_reads_is_found(schema: DictConfig, composed: Compose) -> None:
    config = composed("medix_7b", *ALONE).copy()
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, f"{ACTOR}.clip_ratio_hi", 0.3)
    OmegaConf.update(config, "trainer.totl_epochs", 2)
    OmegaConf.update(config, "medix.chekpoints.keep_last", 1)
    OmegaConf.update(config, "medix.prepare.max_pixel", 1)
    typos = {f"{ACTOR}.clip_ratio_hi", "trainer.totl_epochs", "medix.chekpoints", "medix.prepare.max_pixel"}
    assert set(strangers(config, schema)) == typos
