"""Does the run fit the cards, the judge its own, and what is offloaded the main memory? See `memory_estimate`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from medix.errors import ConfigError
from medix_verl.preflight.check import Check
from medix_verl.preflight.hardware import Gpu
from medix_verl.preflight.memory_estimate import GB, RolloutPlan, TrainingPlan, host_gb, rollout_phase, training_phases
from medix_verl.preflight.model_shape import ModelShape, shape_of

MARGIN = 0.9
"""Share of a card up to which an estimate passes; up to the whole card it warns."""
MIN_SEQUENCES = 8
"""Full-length sequences that should fit vLLM's cache at once: below, generation is slow."""


def card_gb(gpus: list[Gpu], given_gb: float | None) -> float | None:
    """Memory of the smallest card, or what was given for a machine without it."""
    return given_gb or min((gpu.memory_gb for gpu in gpus), default=None)


def check_memory(config: Any, card: float | None) -> Check:
    """The largest phase of a step on one GPU, in parts, against the card; with vLLM's room for sequences."""
    plan, rollout = read_plan(config)
    if plan is None or rollout is None:
        return Check(
            "GPU memory",
            "warn",
            f"no config.json of {config.actor_rollout_ref.model.path} here: nothing to reckon with",
            "download the model first, or name a folder",
        )
    if card is None:
        return Check("GPU memory", "warn", f"{_worst(plan, rollout, 80.0)[2]}; no card here", "give --gpu-memory-gb")
    total, phase, text = _worst(plan, rollout, card)
    sequences = max(0.0, rollout.cache_gb(card) / rollout.sequence_gb())
    found = f"{text} of {card:.0f} GB; vLLM's cache holds {sequences:.1f} sequences of {rollout.max_model_len} tokens"
    if _has_neighbour(config):
        found += "; a judge that shares these cards (JUDGE=local, JUDGE_MEMORY of each) is not counted"
    if sequences < 1:
        remedy = "raise rollout.gpu_memory_utilization or rollout.tensor_model_parallel_size, or lower max_model_len"
        return Check("GPU memory", "fail", found, remedy)
    if total > MARGIN * card:
        return Check("GPU memory", "fail" if total > card else "warn", found, _remedy(config, phase))
    if sequences < MIN_SEQUENCES:
        return Check(
            "GPU memory", "warn", found, "generation will be slow: give vLLM more room, or shorten max_model_len"
        )
    return Check("GPU memory", "pass", found)


def _has_neighbour(config: Any) -> bool:
    """Whether a judge is served on this node: of its share of the cards the launcher knows, the configuration not."""
    urls = [] if config.reward.reward_model.enable else config.medix.scorer.judge.urls
    return any(urlsplit(str(url)).hostname in ("127.0.0.1", "localhost", "::1") for url in urls)


def check_judge_memory(config: Any, card: float | None) -> str | Check:
    """A colocated judge on cards of its own: its weights and at least one sequence.

    Raises:
        ConfigError: it would not start.
    """
    model = config.reward.reward_model
    shape = shape_of(str(model.model_path))
    if shape is None or card is None:
        return Check("judge memory", "warn", f"{model.model_path}: size or card not known here", "watch its start")
    plan = RolloutPlan(
        shape,
        model.rollout.gpu_memory_utilization,
        model.rollout.tensor_model_parallel_size,
        model.rollout.max_model_len or 8192,
    )
    sequences = plan.cache_gb(card) / plan.sequence_gb()
    found = f"weights {plan.weights_gb():.1f} GB of {plan.utilization:.0%} of {card:.0f} GB"
    if sequences < 1:
        raise ConfigError(
            "a judge and one of its sequences on its own cards", found, "give it more GPUs, or take a smaller judge"
        )
    return f"{found}; its cache holds {sequences:.0f} sequences of {plan.max_model_len} tokens"


def check_host_memory(config: Any, total_gb: float) -> str | Check:
    """What is offloaded to main memory, against all there is on this node."""
    plan, _ = read_plan(config)
    if plan is None:
        return Check("main memory", "warn", "model not known here", "download the model first, or name a folder")
    if config.trainer.device == "cpu":
        training = max(sum(parts.values()) for parts in training_phases(plan).values())
        return f"about {training * plan.gpus:.1f} GB of {total_gb:.0f} GB for training on {plan.gpus} CPU process(es)"
    needed = host_gb(plan, config.trainer.n_gpus_per_node)
    found = f"{needed:.0f} GB offloaded, of {total_gb:.0f} GB"
    if needed > 0.8 * total_gb:
        remedy = "set actor_rollout_ref.actor.fsdp_config.optimizer_offload=false, or take a node with more memory"
        return Check("main memory", "fail" if needed > total_gb else "warn", found, remedy)
    return found


def read_plan(config: Any) -> tuple[TrainingPlan, RolloutPlan] | tuple[None, None]:
    """What of the configuration the estimate needs; None where the model's shape is not known."""
    actor, rollout, model = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "model"))
    shape = shape_of(str(model.path))
    if shape is None:
        return None, None
    length = config.data.max_prompt_length + config.data.max_response_length
    engine, gpus = actor.fsdp_config, config.trainer.n_gpus_per_node * config.trainer.nnodes
    plan = TrainingPlan(
        shape,
        gpus=engine.fsdp_size if engine.fsdp_size > 0 else gpus,
        update_tokens=_tokens(
            actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu, actor.ppo_micro_batch_size_per_gpu, length
        ),
        log_prob_tokens=_tokens(
            rollout.log_prob_use_dynamic_bsz,
            rollout.log_prob_max_token_len_per_gpu,
            rollout.log_prob_micro_batch_size_per_gpu,
            length,
        ),
        image_share=config.data.max_prompt_length / length,
        trained_bytes=4 if str(engine.model_dtype) in ("fp32", "float32") else 2,
        lora_rank=model.lora_rank,
        checkpointing=model.enable_gradient_checkpointing,
        param_offload=engine.param_offload,
        optimizer_offload=engine.optimizer_offload,
        reference_offload=config.actor_rollout_ref.ref.fsdp_config.param_offload if _has_reference(config) else None,
    )
    return plan, _rollout(shape, rollout, length)


def _has_reference(config: Any) -> bool:
    kl = config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    return bool(kl) and not config.actor_rollout_ref.model.lora_rank


def _rollout(shape: ModelShape, rollout: Any, length: int) -> RolloutPlan:
    return RolloutPlan(
        shape,
        rollout.gpu_memory_utilization,
        rollout.tensor_model_parallel_size,
        rollout.max_model_len or length,
        rollout.free_cache_engine,
    )


def _tokens(dynamic: bool, most: int | None, micro_batch: int | None, length: int) -> int:
    """Of one micro-batch. veRL packs up to `most` tokens, and never fewer than one whole sequence."""
    return max(most or 0, length) if dynamic else (micro_batch or 1) * length


def _worst(plan: TrainingPlan, rollout: RolloutPlan, card: float) -> tuple[float, str, str]:
    """The largest phase: its GB, its name, and all of it in words."""
    phases = training_phases(plan)
    if not rollout.sleeps:
        for parts in phases.values():
            parts["vLLM"] = rollout.utilization * card
    phases["rollout"] = rollout_phase(plan, rollout, card)
    name = max(phases, key=lambda name: sum(phases[name].values()))
    total = sum(phases[name].values())
    others = ", ".join(f"{other} {sum(parts.values()):.1f}" for other, parts in phases.items() if other != name)
    detail = ", ".join(f"{part} {size:.1f}" for part, size in sorted(phases[name].items(), key=lambda item: -item[1]))
    size = f"{plan.shape.parameters / GB:.1f} B parameters"
    return total, name, f"{size}; reckoned: {name} {total:.1f} GB ({detail}), {others}"


def _remedy(config: Any, phase: str) -> str:
    if phase == "rollout":
        return "lower actor_rollout_ref.rollout.gpu_memory_utilization, or set actor.fsdp_config.optimizer_offload=true"
    if phase == "log-probs":
        return "lower actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu"
    if not config.actor_rollout_ref.model.enable_gradient_checkpointing:
        return "set actor_rollout_ref.model.enable_gradient_checkpointing=true"
    return (
        "lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu, take more GPUs, or train adapters (LORA_RANK=); "
        "the optimizer's own step needs 16 bytes a parameter over all GPUs"
    )
