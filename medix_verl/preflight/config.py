"""Checks of the configuration alone: what veRL would assert minutes into a run, or would silently not do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix.files import leaves
from medix.options import read_options
from medix_verl.mean_band import read_mean_band
from medix_verl.preflight.check import Check
from medix_verl.training.watch import read_watchdog
from reward_fns import AssumedScorers, build_composite
from reward_fns.scorers.judge_prompt import JUDGE_PROMPT, load_judge_prompt
from reward_fns.scorers.service import ServiceOptions

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
}
IGNORED = ("reward_model", "custom_reward_function", "sandbox_fusion")
"""Old places of what stands below `reward` today. veRL 0.9.1 still has the keys; its PPO trainer reads none of them."""


@dataclass(frozen=True)
class Sizes:
    """Prompts a step (`batch`) and an update (`mini`), responses a prompt (`group`), and who shares them."""

    batch: int
    mini: int
    group: int
    processes: int

    @property
    def unit(self) -> int:
        """The fewest prompts whose responses the processes can share evenly."""
        return self.processes // math.gcd(self.group, self.processes)

    def fitting(self, most: int) -> tuple[int, int]:
        """Return (batch, mini) that go together: the largest up to `most` and `self.mini`, or the smallest."""
        mini = max(self.unit, min(self.mini, most) // self.unit * self.unit)
        return max(mini, most // mini * mini), mini

    def set_to(self, most: int) -> str:
        """Return the overrides for `fitting(most)`."""
        batch, mini = self.fitting(most)
        return f"Set data.train_batch_size={batch} actor_rollout_ref.actor.ppo_mini_batch_size={mini}."


def read_sizes(config: Any) -> Sizes:
    """Return the sizes of a configuration.

    Raises:
        ConfigError: one of them is not above 0.
    """
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    # Processes of one sequence-parallel group work on the same responses.
    processes = gpus // max(1, config.actor_rollout_ref.actor.ulysses_sequence_parallel_size)
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if min(batch, mini, processes) < 1:
        raise ConfigError(
            f"train_batch_size is {batch}, ppo_mini_batch_size {mini}, and {processes} process(es) train.",
            "Set all of them above 0.",
        )
    return Sizes(batch, mini, config.actor_rollout_ref.rollout.n, processes)


def check_batch_sizes(config: Any) -> str:
    """Check what has to divide what; the remedy names sizes near by that do."""
    sizes = read_sizes(config)
    for good, problem, fix in _size_rules(config, sizes):
        if not good:
            raise ConfigError(problem, fix)
    return f"{sizes.batch} prompts x {sizes.group} responses on {sizes.processes} process(es)"


def _size_rules(config: Any, sizes: Sizes) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, what is wrong else, what to do); later rules take for granted that earlier ones hold."""
    batch, mini, group, processes = sizes.batch, sizes.mini, sizes.group, sizes.processes
    problem = f"rollout.n is {group}: a group of one has no advantage."
    yield group >= 2, problem, "Set actor_rollout_ref.rollout.n=2 or more."
    fix = sizes.set_to(batch)
    problem = f"ppo_mini_batch_size x rollout.n ({mini * group}) is no multiple of the {processes} processes."
    yield mini * group % processes == 0, problem, fix
    problem = f"data.train_batch_size ({batch}) is no multiple of actor.ppo_mini_batch_size ({mini})."
    yield batch % mini == 0, problem, fix
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    # veRL sizes the micro-batches itself where they are dynamic.
    update, pass_ = actor.ppo_micro_batch_size_per_gpu, rollout.log_prob_micro_batch_size_per_gpu
    for key, size, dynamic, prompts in (
        ("actor.ppo", update, actor.use_dynamic_bsz, mini),
        ("rollout.log_prob", pass_, rollout.log_prob_use_dynamic_bsz, batch),
    ):
        responses = prompts * group // processes
        if size is not None and not dynamic:
            name = f"{key}_micro_batch_size_per_gpu"
            near = max((part for part in range(1, size + 1) if responses % part == 0), default=1)
            problem = f"A process's {responses} responses are no multiple of {name} ({size})."
            yield size > 0 and responses % size == 0, problem, f"Set actor_rollout_ref.{name}={near}."


def check_reward(config: Any) -> str:
    """Build the composite, hold the judge's prompt against how it reads verdicts, and show its effective weights."""
    settings = OmegaConf.to_container(config.medix.reward, resolve=True)
    composite = build_composite(settings, AssumedScorers())
    if "judge" in composite.needs:
        prompt = str(OmegaConf.select(config, "medix.scorer.judge.prompt", default=JUDGE_PROMPT))
        for verdict in composite.verdicts:
            load_judge_prompt(Path(prompt)).check(verdict, prompt)
    return ", ".join(f"{row['component']} {row['effective']:.4g}" for row in composite.table())


def check_reward_manager(config: Any) -> str:
    """Check that the reward in force is ours, and that no setting of a reward goes unread."""
    if others := _others(config, REWARD_MANAGER):
        raise ConfigError(
            f"The reward manager is not MedixRewardManager in one worker: {', '.join(others)}.",
            "Compose from recipes/medix/config, and do not override reward.reward_manager or reward.num_workers.",
            found=", ".join(others),
        )
    old = [leaf for name in IGNORED for leaf in leaves(config.get(name), name)]
    if unread := [f"{key}={value}" for key, value in old if value is not None]:
        raise ConfigError(
            f"veRL 0.9.1 does not read these top-level keys of older releases: {', '.join(unread)}.",
            "Write them below `reward.`, e.g. reward.reward_model.enable; a reward of your own is a component: "
            "medix.reward.components.NAME={path: FILE:FUNCTION, weight: W}.",
            found=", ".join(unread),
        )
    return "MedixRewardManager"


def check_plugins(config: Any) -> str | Check:
    """Check that the other places at which veRL takes code are ours: a run without them trains, but is watched less."""
    if others := _others(config, PLUGINS):
        found = f"{', '.join(others)}: guards on the reward and telemetry are lost, a failed scorer stops no run"
        return Check("warn", found, "Leave these keys as the recipe has them.")
    return "dataset, agent loop and replay buffer are ours"


def _others(config: Any, ours: Mapping[str, object]) -> list[str]:
    found = {key: OmegaConf.select(config, key) for key in ours}
    return [f"{key}={value}" for key, value in found.items() if value != ours[key]]


def check_load_format(config: Any) -> str:
    """Check that vLLM starts from the real weights."""
    found = config.actor_rollout_ref.rollout.load_format
    if found == "dummy":
        raise ConfigError(
            "rollout.load_format=dummy fills vLLM's pixel normalisation with noise that no weight sync restores.",
            "Set actor_rollout_ref.rollout.load_format=auto.",
        )
    return str(found)


def check_gradient_sync(config: Any) -> str:
    """Check that each micro-batch's gradients are sharded at once: else every GPU holds those of the whole model."""
    if config.actor_rollout_ref.actor.fsdp_config.get("use_no_sync_for_gradient_accumulation"):
        raise ConfigError(
            "actor.fsdp_config.use_no_sync_for_gradient_accumulation keeps whole gradients on every GPU (7B: 33 GB).",
            "Set actor_rollout_ref.actor.fsdp_config.use_no_sync_for_gradient_accumulation=false.",
        )
    return "after every micro-batch"


def check_adapters(config: Any) -> str:
    """Check that no adapter is on the image encoder: vLLM serves none there, so the rollouts would miss it."""
    model = config.actor_rollout_ref.model
    if model.lora_rank < 1:
        return "none: all weights are trained"
    try:
        excluded = re.fullmatch(str(model.exclude_modules or ""), "model.visual.blocks.0.attn.qkv")
    except re.error:
        excluded = None
    if model.target_modules == "all-linear" and not excluded:
        raise ConfigError(
            f"Adapters would be put on the image encoder too (exclude_modules={model.exclude_modules}).",
            "Add +lora=adapter, or set actor_rollout_ref.model.exclude_modules='.*visual.*'.",
        )
    return f"rank {model.lora_rank}"


def check_lengths(config: Any) -> str | Check:
    """Check that a whole sequence fits vLLM's limits and the token budgets of the trainer."""
    data, actor, rollout = config.data, config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    wanted, limit = data.max_prompt_length + data.max_response_length, rollout.max_model_len
    if limit is None:
        return Check("warn", "rollout.max_model_len is not set: the model's own", f"Set it to {wanted}.")
    limits = [("rollout.max_model_len", limit)]
    if not rollout.enable_chunked_prefill:
        limits.append(("rollout.max_num_batched_tokens", rollout.max_num_batched_tokens))
    if actor.use_dynamic_bsz:
        limits.append(("actor.ppo_max_token_len_per_gpu", actor.ppo_max_token_len_per_gpu))
    if rollout.log_prob_use_dynamic_bsz:
        limits.append(("rollout.log_prob_max_token_len_per_gpu", rollout.log_prob_max_token_len_per_gpu))
    for name, most in limits:
        least = max(wanted, limit) if name == "rollout.max_num_batched_tokens" else wanted
        if most < least:
            raise ConfigError(
                f"{name} is {most}, and one whole sequence takes {least} tokens.",
                f"Set actor_rollout_ref.{name}={least}.",
            )
    return f"prompt {data.max_prompt_length} + response {data.max_response_length} within {limit}"


def check_replicas(config: Any) -> str:
    """Check that rollout engines of `tensor_model_parallel_size` GPUs each fill the trainer's GPUs."""
    gpus, parallel = config.trainer.n_gpus_per_node, config.actor_rollout_ref.rollout.tensor_model_parallel_size
    if gpus % parallel:
        divisors = [size for size in range(1, gpus + 1) if gpus % size == 0]
        raise ConfigError(
            f"rollout.tensor_model_parallel_size ({parallel}) does not divide trainer.n_gpus_per_node ({gpus}).",
            f"Set actor_rollout_ref.rollout.tensor_model_parallel_size to one of {divisors}.",
        )
    return f"{gpus * config.trainer.nnodes // parallel} engine(s) of {parallel} GPU slot(s)"


def check_guards(config: Any) -> str:
    """Read the settings of watchdog and group filter; scorers must name an outage before a guard ends the run."""
    options = read_watchdog(config.medix.watchdog)
    scorer = read_options(ServiceOptions, OmegaConf.to_container(config.medix.scorer, resolve=True), "medix.scorer")
    # The last try of a call that holds may begin just before the limit.
    held_s = scorer.hold_limit_s + max(scorer.judge.timeout_s, scorer.embedder.timeout_s)
    if 60 * options.stall_minutes <= held_s:
        raise ConfigError(
            f"After {options.stall_minutes:g} minutes the run would end as silent, without naming the judge: the "
            f"scorers hold an outage for {held_s / 60:g} (hold_limit_s + timeout_s).",
            f"Set medix.watchdog.stall_minutes={math.ceil(held_s / 60) + 10}, or lower "
            "medix.scorer.hold_limit_s (`+` adds it).",
        )
    band = read_mean_band(config.medix.filter, bool(config.algorithm.filter_groups.enable))
    bounds = "" if band.is_off else f"; groups kept with a mean between {band.low} and {band.high}"
    return f"a silence of {options.stall_minutes:g} minutes ends the run{bounds}"
