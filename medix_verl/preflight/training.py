"""Does the configuration itself make sense?"""

from __future__ import annotations

import math
import re
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.check import Check


def check_reward(config: Any) -> str:
    """The composite can be built, and its effective weights."""
    from omegaconf import OmegaConf

    from reward_fns import AssumedScorers, build_composite

    settings = OmegaConf.to_container(config.medix.reward, resolve=True)
    composite = build_composite(settings, AssumedScorers())
    return ", ".join(f"{row['component']} {row['effective']:.4g}" for row in composite.table())


def check_load_format(config: Any) -> str:
    found = config.actor_rollout_ref.rollout.load_format
    if found == "dummy":
        raise ConfigError(
            "rollout.load_format=auto",
            "dummy, which fills vLLM's pixel normalisation with noise that no weight sync restores",
            "set actor_rollout_ref.rollout.load_format=auto",
        )
    return str(found)


def check_adapters(config: Any) -> str:
    """vLLM serves no adapter on the image encoder: one trained there is in the actor and missing from the rollouts."""
    model = config.actor_rollout_ref.model
    if model.lora_rank < 1:
        return "none: all weights are trained"
    try:
        excluded = re.fullmatch(str(model.exclude_modules or ""), "model.visual.blocks.0.attn.qkv")
    except re.error:
        excluded = None
    if model.target_modules == "all-linear" and not excluded:
        raise ConfigError(
            "adapters on the language model only",
            f"target_modules=all-linear with exclude_modules={model.exclude_modules}",
            "add +lora=adapter, or set actor_rollout_ref.model.exclude_modules='.*visual.*'",
        )
    return f"rank {model.lora_rank}"


def check_lengths(config: Any) -> str | Check:
    wanted = config.data.max_prompt_length + config.data.max_response_length
    limit = config.actor_rollout_ref.rollout.max_model_len
    if limit is None:
        return Check("lengths", "warn", "rollout.max_model_len is not set: the model's own", f"set it to {wanted}")
    batched, chunked = rollout_limits(config)
    if not chunked and batched < limit:
        raise ConfigError(
            f"rollout.max_num_batched_tokens of at least max_model_len={limit}, as chunked prefill is off",
            str(batched),
            f"set actor_rollout_ref.rollout.max_num_batched_tokens={limit}",
        )
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    for name, dynamic, most in (
        ("actor.ppo_max_token_len_per_gpu", actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu),
        (
            "rollout.log_prob_max_token_len_per_gpu",
            rollout.log_prob_use_dynamic_bsz,
            rollout.log_prob_max_token_len_per_gpu,
        ),
    ):
        if dynamic and most < wanted:
            raise ConfigError(f"{name} of at least one whole sequence, {wanted}", str(most), f"set {name}={wanted}")
    if limit < wanted:
        raise ConfigError(
            f"rollout.max_model_len of at least prompt + response = {wanted}",
            str(limit),
            f"set actor_rollout_ref.rollout.max_model_len={wanted}",
        )
    return f"prompt {config.data.max_prompt_length} + response {config.data.max_response_length} within {limit}"


def rollout_limits(config: Any) -> tuple[int, bool]:
    """(tokens that vLLM batches at most, whether it may cut a prompt in pieces)."""
    rollout = config.actor_rollout_ref.rollout
    return int(rollout.max_num_batched_tokens), bool(rollout.enable_chunked_prefill)


def check_replicas(config: Any) -> str:
    """Rollout engines of `tensor_model_parallel_size` GPUs each, on all the trainer's GPUs."""
    gpus, parallel = config.trainer.n_gpus_per_node, config.actor_rollout_ref.rollout.tensor_model_parallel_size
    if gpus % parallel:
        raise ConfigError(
            f"rollout.tensor_model_parallel_size ({parallel}) to divide trainer.n_gpus_per_node ({gpus})",
            "it does not",
            f"set actor_rollout_ref.rollout.tensor_model_parallel_size to one of {_divisors(gpus)}",
        )
    return f"{gpus * config.trainer.nnodes // parallel} engine(s) of {parallel} GPU slot(s)"


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def check_guards(config: Any) -> str:
    """Watchdog and group filter: their settings are read, as the run will read them.

    Raises:
        ConfigError: also where the run would be ended as silent before the scorers give up and name the outage.
    """
    from omegaconf import OmegaConf

    from medix.options import read_options
    from medix_verl.mean_band import read_mean_band
    from medix_verl.training.watchdog import read_watchdog
    from reward_fns.scorers.service import ServiceOptions

    options = read_watchdog(config.medix.watchdog)
    scorer = read_options(ServiceOptions, OmegaConf.to_container(config.medix.scorer, resolve=True), "medix.scorer")
    # The last try of a call that holds may begin just before the limit.
    held_s = scorer.hold_limit_s + max(scorer.judge.timeout_s, scorer.embedder.timeout_s)
    if 60 * options.stall_minutes <= held_s:
        raise ConfigError(
            "medix.watchdog.stall_minutes above the time that the scorers hold an outage "
            f"(hold_limit_s + timeout_s = {held_s / 60:g} minutes)",
            f"{options.stall_minutes:g}: the run would end as silent, without naming the judge",
            f"set medix.watchdog.stall_minutes={math.ceil(held_s / 60) + 10} or lower "
            "medix.scorer.hold_limit_s (`+` adds it)",
        )
    band = read_mean_band(config.medix.filter, bool(config.algorithm.filter_groups.enable))
    bounds = "" if band.is_off else f"; groups kept with a mean between {band.low} and {band.high}"
    return f"a silence of {options.stall_minutes:g} minutes ends the run{bounds}"
