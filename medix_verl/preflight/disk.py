"""Checkpoints and disk: is there room for what a run writes, and does anything delete the best checkpoint?"""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.check import Check
from medix_verl.preflight.memory_estimate import checkpoint_gb
from medix_verl.preflight.model import count_parameters, hub_name, shape_of
from medix_verl.training.checkpoints import CheckpointOptions, read_checkpoint_options

DATA_GB = 24.0
"""The released training data, prepared. `datasets` copies it once more, as Arrow, into its cache."""


def check_disk(config: Any) -> str | Check:
    """Room for what this run has still to write, added up for each disk: checkpoints, models, data.

    Raises:
        ConfigError: a file of weights can not be read, or the options are wrong.
    """
    if checkpoint_bytes(config) is None:
        return Check("warn", "size of the model not known here", "Download it first, or name a folder.")
    disks: dict[int, list[tuple[str, float, Path]]] = defaultdict(list)
    for what, size, folder in needs(config):
        there = existing(folder)
        disks[there.stat().st_dev].append((what, size, there))
    found, short = [], False
    for parts in disks.values():
        free = shutil.disk_usage(parts[0][2]).free / 1e9
        needed = sum(size for _, size, _ in parts)
        short |= needed >= free
        listed = ", ".join(f"{what} {size:.3g} GB" for what, size, _ in parts)
        found.append(f"{free:.1f} GB free at {parts[0][2]}, about {needed:.3g} GB needed ({listed})")
    remedy = "Free room, lower medix.checkpoints.keep_last, raise trainer.save_freq, or move RUN or HF_HOME elsewhere."
    return Check("fail", "; ".join(found), remedy) if short else "; ".join(found)


def needs(config: Any) -> list[tuple[str, float, Path]]:
    """Return (what, GB that are still to be written, where) of a run; what is there already is not counted."""
    folder = Path(str(config.trainer.default_local_dir))
    kept = kept_at_once(config, read_checkpoint_options(config.medix.checkpoints))
    there = len([path for path in folder.glob("global_step_*") if path.is_dir()])
    size = (checkpoint_bytes(config) or 0) / 1e9
    parts = [(f"{max(0, kept - there)} of {kept} checkpoint(s)", size * max(0, kept - there), folder)]
    parts += [(f"model {name}", gb, hub_cache()) for name, gb in downloads(config)]
    files = [config.data.train_files, config.data.val_files]
    if config.trainer.device == "cuda":
        sizes = [Path(str(file)).stat().st_size / 1e9 for file in files if Path(str(file)).is_file()]
        data = sum(sizes) or DATA_GB
        cache = hub_cache().parent / "datasets"
        copied = sum(file.stat().st_size for file in (cache / "parquet").rglob("*.arrow")) / 1e9 if sizes else 0
        if copied < data:
            parts.append(("Arrow copy of the data", data, cache))
        if not sizes:
            parts.append(("data", data, Path(str(files[0])).parent))
    return parts


def downloads(config: Any) -> list[tuple[str, float]]:
    """Return (hub name, GB) of the models that are not in the hub client's cache yet; bf16, as they are published."""
    from huggingface_hub import try_to_load_from_cache

    names = [str(config.actor_rollout_ref.model.path)]
    if config.reward.reward_model.enable:
        names.append(str(config.reward.reward_model.model_path))
    missing = [name for name in names if hub_name(name) and not try_to_load_from_cache(name, "tokenizer_config.json")]
    return [(name, 2 * shape.parameters / 1e9) for name in missing if (shape := shape_of(name)) is not None]


def hub_cache() -> Path:
    """Return the folder into which the hub client downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def kept_at_once(config: Any, options: CheckpointOptions) -> int:
    """Return how many are on disk at most: the last N, the best, and the new one before the oldest goes."""
    save_freq, steps = config.trainer.save_freq, config.trainer.total_training_steps
    if save_freq <= 0:
        return 1  # a run that the watchdog stops is saved all the same
    written = math.ceil(steps / save_freq) if steps else math.inf
    most = options.keep_last + options.keep_best + 1 if options.keep_last else written
    if most == math.inf:
        raise ConfigError(
            "There is no end to the checkpoints: medix.checkpoints.keep_last=0 and no trainer.total_training_steps.",
            "Set one of the two.",
        )
    return int(min(written, most))


def checkpoint_bytes(config: Any) -> int | None:
    """Return the size of one checkpoint; None where the model is neither here nor known."""
    from medix_verl.preflight.memory import read_plan

    model = config.actor_rollout_ref.model
    folder = Path(str(model.path))
    stored = sum(count_parameters(file) for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    kind = str(config.actor_rollout_ref.actor.fsdp_config.model_dtype)
    if stored and not model.lora_rank:
        return (4 if kind in ("fp32", "float32") else 2) * 3 * stored
    plan, _ = read_plan(config)
    return None if plan is None else round(checkpoint_gb(plan) * 1e9)


def check_best(config: Any) -> str | Check:
    """That only our callback deletes checkpoints, and that some step is both saved and validated.

    Raises:
        ConfigError: veRL would delete the best checkpoint.
    """
    trainer, options = config.trainer, read_checkpoint_options(config.medix.checkpoints)
    if not str(trainer.checkpoint_callback_class).endswith(".MedixCheckpointCallback"):
        callback = trainer.checkpoint_callback_class
        return Check(
            "warn",
            f"callback {callback}: no best checkpoint, and no save when a guard stops the run",
            "Leave trainer.checkpoint_callback_class as the recipe has it.",
        )
    if trainer.max_actor_ckpt_to_keep is not None or trainer.get("remove_previous_ckpt_in_save"):
        raise ConfigError(
            f"veRL would delete checkpoints, the best one too (max_actor_ckpt_to_keep="
            f"{trainer.max_actor_ckpt_to_keep}).",
            "Set trainer.max_actor_ckpt_to_keep=null and medix.checkpoints.keep_last=N.",
        )
    both = math.lcm(trainer.save_freq, trainer.test_freq) if min(trainer.save_freq, trainer.test_freq) > 0 else None
    kept = f"the last {options.keep_last}" if options.keep_last else "all"
    if options.keep_best and both is None:
        return Check("warn", f"{kept}; no best one", "Set trainer.save_freq and trainer.test_freq above 0.")
    if options.keep_best and both != trainer.save_freq:
        found = f"{kept}, and the best of every {both} steps: others are saved but not validated"
        return Check("warn", found, "Make trainer.save_freq a multiple of trainer.test_freq.")
    return f"{kept}, and the best by {options.metric} ({options.mode})" if options.keep_best else kept
