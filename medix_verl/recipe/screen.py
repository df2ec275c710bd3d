"""The one screen that a dry run begins with: what is trained, how, on what, and what it is estimated to take."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from medix_verl.preflight import memory
from medix_verl.preflight.config import check_reward
from medix_verl.preflight.disk import checkpoint_bytes, kept_at_once
from medix_verl.preflight.machine import judge_gpus
from medix_verl.recipe.figures import run_figures
from medix_verl.training.checkpoints import read_checkpoint_options


def show(config: Any, recipe: str) -> None:
    """Print the screen as comment lines, so that the configuration below it stays valid YAML."""
    table = Table.grid(padding=(0, 2))
    for name, text in describe(config):
        table.add_row(name, text)
    console = Console(width=108, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(f"{recipe}: what would run", markup=False)
        console.print(table, markup=False)
    print("".join(f"## {line.rstrip()}\n" for line in captured.get().splitlines()))


def describe(config: Any) -> list[tuple[str, str]]:
    """Return (name, text) of each line."""
    model, actor, rollout = (config.actor_rollout_ref[name] for name in ("model", "actor", "rollout"))
    data, trainer, optim = config.data, config.trainer, actor.optim
    gpu_run = trainer.device == "cuda"
    plan, _ = memory.read_plan(config)
    size = f", {_count(plan.shape.parameters)} parameters" if plan else ""
    trained = f"adapters of rank {model.lora_rank}" if model.lora_rank else "all weights trained"
    kind = "DAPO" if config.algorithm.filter_groups.enable else actor.policy_loss.loss_mode.upper()
    kind = "GRPO" if kind == "VANILLA" else kind
    kl = f"KL loss {actor.kl_loss_coef}" if actor.use_kl_loss else "no KL term"
    filtered = ", groups of equal rewards replaced" if config.algorithm.filter_groups.enable else ""
    updates = data.train_batch_size // actor.ppo_mini_batch_size
    length = (
        f"{trainer.total_training_steps} steps" if trainer.total_training_steps else f"{trainer.total_epochs} epochs"
    )
    lines = [
        ("run", f"{config.medix.run_dir}, seed {data.seed}, trackers {', '.join(trainer.logger)}"),
        ("model", f"{model.path}{size}, {trained}"),
        ("algorithm", f"{kind}: clip {actor.clip_ratio_low} / {actor.clip_ratio_high}, {kl}{filtered}"),
        ("learning rate", f"{optim.lr:g} {optim.lr_scheduler_type}, {optim.optimizer}, decay {optim.weight_decay}"),
        ("batch", f"{data.train_batch_size} prompts a step in {updates} update(s), {length}"),
        ("responses", f"{rollout.n} a prompt, temperature {rollout.temperature}"),
        ("lengths", f"prompt {data.max_prompt_length} + response {data.max_response_length} tokens"),
        ("data", f"{data.train_files}"),
        ("reward", f"{config.medix.reward.preset}: {check_reward(config)}"),
        ("judge", _judge(config)),
        ("embedder", f"{config.medix.scorer.embedder.model}"),
        ("checkpoints", _checkpoints(config)),
    ]
    if not gpu_run or plan is None:
        return lines
    judges = f" + {judge_gpus(config)} for the judge" if judge_gpus(config) else ""
    card = memory.check_memory(config, 80.0).found.split(";")[1].split(" of 80")[0].strip()
    _, parts = memory.host_memory(config, plan)
    figures = run_figures(config)
    lines += [
        ("GPUs", f"{trainer.n_gpus_per_node} to train{judges}, on {trainer.nnodes} node(s), "
         f"rollout engines of {rollout.tensor_model_parallel_size}"),
        ("memory", f"one GPU of 80 GB, {card}"),
        ("main memory", parts),
        ("estimate", figures.describe() if figures else "unknown"),
    ]  # fmt: skip
    return lines


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def _judge(config: Any) -> str:
    judge = config.medix.scorer.judge
    if config.reward.reward_model.enable:
        return f"{config.reward.reward_model.model_path}, served by veRL"
    return f"{judge.model} at {', '.join(map(str, judge.urls))}"


def _checkpoints(config: Any) -> str:
    size = (checkpoint_bytes(config) or 0) / 1e9
    try:
        kept = kept_at_once(config, read_checkpoint_options(config.medix.checkpoints))
    except ValueError:
        return "without end"
    return f"every {config.trainer.save_freq} steps, {size:.3g} GB each, at most {kept} at once: {size * kept:.3g} GB"
