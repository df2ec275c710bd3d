"""Does the run fit the cards, the judge its own, and what is offloaded the main memory? See `memory_estimate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix.files import lookup, mapping_inside
from medix_verl.preflight import memory_estimate as estimate
from medix_verl.preflight.check import Check
from medix_verl.preflight.machine import has_local_judge
from medix_verl.preflight.memory_estimate import GB, RolloutPlan, TrainingPlan
from medix_verl.preflight.model import shape_of

MARGIN = 0.9
"""Share of a card up to which an estimate passes; up to the whole card it warns."""
MIN_SEQUENCES = 8
"""Full-length sequences that should fit vLLM's cache at once: below, generation is slow."""
UNKNOWN = "Download the model first, or name a folder."


def check_memory(config: Any, card: float | None) -> Check:
    """Hold the largest phase of a step on one GPU, in parts, against the card; with vLLM's room for sequences."""
    plan, rollout = read_plan(config)
    if plan is None or rollout is None:
        return Check("warn", f"no config.json of {config.actor_rollout_ref.model.path} here: no estimate", UNKNOWN)
    if card is None:
        return Check("warn", f"{_worst(plan, rollout, 80.0)[2]}; no card here", "Give --gpu-memory-gb.")
    total, phase, text = _worst(plan, rollout, card)
    sequences = max(0.0, rollout.cache_gb(card) / rollout.sequence_gb())
    found = f"{text} of {card:.0f} GB; vLLM's cache holds {sequences:.1f} sequences of {rollout.max_model_len} tokens"
    if has_local_judge(config):
        found += "; a judge that shares these cards (JUDGE=local, JUDGE_MEMORY of each) is not counted"
    if sequences < 1:
        return Check(
            "fail",
            found,
            "Raise rollout.gpu_memory_utilization or rollout.tensor_model_parallel_size, or lower max_model_len.",
        )
    if total > MARGIN * card:
        return Check("fail" if total > card else "warn", found, _remedy(config, phase))
    if sequences < MIN_SEQUENCES:
        return Check("warn", found, "Generation will be slow: give vLLM more room, or shorten max_model_len.")
    return Check("pass", found)


def check_judge_memory(config: Any, card: float | None) -> str | Check:
    """Check that a colocated judge fits its own cards: its weights and at least one sequence."""
    model = config.reward.reward_model
    shape = shape_of(str(model.model_path))
    if shape is None or card is None:
        return Check("warn", f"{model.model_path}: size or card not known here", "Watch its start.")
    limits = model.rollout
    length = limits.max_model_len or 8192
    plan = RolloutPlan(shape, limits.gpu_memory_utilization, limits.tensor_model_parallel_size, length)
    sequences = plan.cache_gb(card) / plan.sequence_gb()
    found = f"weights {plan.weights_gb():.1f} GB of {plan.utilization:.0%} of {card:.0f} GB"
    if sequences < 1:
        raise ConfigError(
            f"The judge and one of its sequences do not fit its cards: {found}.",
            "Give it more GPUs, or take a smaller judge.",
        )
    return f"{found}; its cache holds {sequences:.0f} sequences of {plan.max_model_len} tokens"


def check_host_memory(config: Any, total_gb: float) -> str | Check:
    """Hold the larger of the start and a step against this node's memory, or what its container may use of it."""
    plan, _ = read_plan(config)
    if plan is None:
        return Check("warn", "model not known here", UNKNOWN)
    if config.trainer.device == "cpu":
        training = max(sum(parts.values()) for parts in estimate.training_phases(plan).values())
        return f"about {training * plan.gpus:.1f} GB of {total_gb:.0f} GB for training on {plan.gpus} CPU process(es)"
    needed, found = host_memory(config, plan)
    found += f", of {total_gb:.0f} GB"
    if needed <= 0.8 * total_gb:
        return found
    remedy = "Set actor_rollout_ref.actor.fsdp_config.optimizer_offload=false, or take a node with more memory."
    return Check("fail" if needed > total_gb else "warn", found, remedy)


def host_memory(config: Any, plan: TrainingPlan) -> tuple[float, str]:
    """Return the main memory that one node needs, in GB, and its parts in words."""
    gpus, rollout = config.trainer.n_gpus_per_node, config.actor_rollout_ref.rollout
    start, offloaded = estimate.host_start_gb(plan, gpus), estimate.host_step_gb(plan, gpus)
    pixels, source = mean_pixels(config)
    # DAPO generates surplus groups, up to as many again, before it has a batch.
    surplus = 2 if config.algorithm.filter_groups.enable else 1
    queue = estimate.pixels_gb(surplus * config.data.train_batch_size * rollout.n, pixels) / config.trainer.nnodes
    needed = max(start, offloaded + queue)
    parts = f"loading {start:.0f} GB, a step {offloaded:.0f} offloaded + {queue:.0f} of pixels ({source})"
    return needed, f"{needed:.0f} GB: the larger of {parts}"


def mean_pixels(config: Any) -> tuple[float, str]:
    """Return the pixels of an average prompt, and where the figure is from: the data's manifest, or a guess."""
    from omegaconf import OmegaConf

    folder = Path(str(OmegaConf.select(config, "data.train_files"))).parent
    prepare = OmegaConf.select(config, "medix.prepare") or {}
    least, most = float(prepare.get("min_pixels") or 0), float(prepare.get("max_pixels") or math.inf)
    train = lookup(mapping_inside(folder, "manifest.json"), "splits.train")
    bins = lookup(train, "pixels.histogram") or {}
    rows = lookup(train, "rows")
    # A bin of the histogram spans a factor of four: its middle is half its edge. The image processor enlarges the small
    # ones and reduces the large ones.
    total = sum(n * min(max(int(key[3:]) / 2, least), most) for key, n in bins.items() if key.startswith("<= "))
    if total and rows:
        return total / rows, "from manifest.json"
    return (least * most) ** 0.5 if most < math.inf else least, "assumed: between min_pixels and max_pixels"


def read_plan(config: Any) -> tuple[TrainingPlan, RolloutPlan] | tuple[None, None]:
    """Return what of the configuration the estimate needs; None where the model's shape is not known."""
    actor, rollout, model = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "model"))
    shape = shape_of(str(model.path))
    if shape is None:
        return None, None
    length = config.data.max_prompt_length + config.data.max_response_length
    engine, gpus = actor.fsdp_config, config.trainer.n_gpus_per_node * config.trainer.nnodes
    reference = config.actor_rollout_ref.ref.fsdp_config
    has_reference = (actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not model.lora_rank
    plan = TrainingPlan(
        shape,
        gpus=engine.fsdp_size if engine.fsdp_size > 0 else gpus,
        update_tokens=_tokens(actor, "ppo", actor.use_dynamic_bsz, length),
        log_prob_tokens=_tokens(rollout, "log_prob", rollout.log_prob_use_dynamic_bsz, length),
        image_share=config.data.max_prompt_length / length,
        trained_bytes=4 if str(engine.model_dtype) in ("fp32", "float32") else 2,
        lora_rank=model.lora_rank,
        checkpointing=model.enable_gradient_checkpointing,
        param_offload=engine.param_offload,
        optimizer_offload=engine.optimizer_offload,
        reference_offload=reference.param_offload if has_reference else None,
        reference_bytes=4 if str(reference.get("model_dtype")) in ("fp32", "float32") else 2,
    )
    limits = (rollout.gpu_memory_utilization, rollout.tensor_model_parallel_size, rollout.max_model_len or length)
    return plan, RolloutPlan(shape, *limits, rollout.free_cache_engine)


def _tokens(part: Any, kind: str, dynamic: bool, length: int) -> int:
    """Return the tokens of one micro-batch. veRL packs up to a limit, and never fewer than one whole sequence."""
    if dynamic:
        return max(part[f"{kind}_max_token_len_per_gpu"] or 0, length)
    return (part[f"{kind}_micro_batch_size_per_gpu"] or 1) * length


def _worst(plan: TrainingPlan, rollout: RolloutPlan, card: float) -> tuple[float, str, str]:
    """Return the largest phase: its GB, its name, and all of it in words."""
    phases = estimate.training_phases(plan)
    if not rollout.sleeps:
        for parts in phases.values():
            parts["vLLM"] = rollout.utilization * card
    phases["rollout"] = estimate.rollout_phase(plan, rollout, card)
    name = max(phases, key=lambda name: sum(phases[name].values()))
    total = sum(phases[name].values())
    others = ", ".join(f"{other} {sum(parts.values()):.1f}" for other, parts in phases.items() if other != name)
    detail = ", ".join(f"{part} {size:.1f}" for part, size in sorted(phases[name].items(), key=lambda item: -item[1]))
    size = f"{plan.shape.parameters / GB:.1f} B parameters"
    return total, name, f"{size}; estimated: {name} {total:.1f} GB ({detail}), {others}"


def _remedy(config: Any, phase: str) -> str:
    if phase == "rollout":
        return "Lower rollout.gpu_memory_utilization, or set actor.fsdp_config.optimizer_offload=true."
    if phase == "log-probs":
        return "Lower actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu."
    if not config.actor_rollout_ref.model.enable_gradient_checkpointing:
        return "Set actor_rollout_ref.model.enable_gradient_checkpointing=true."
    return (
        "Lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu, take more GPUs, or train adapters (LORA_RANK=); "
        "weights, gradients and the optimizer's moments are 16 bytes a parameter over all GPUs (bf16: 8)."
    )
