"""Checkpoints: is there room for them, does anything delete the best one, and can there be a best one at all?"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.check import Check
from medix_verl.preflight.model_shape import shape_of
from medix_verl.training.checkpoints import CheckpointOptions, read_checkpoint_options


def check_disk(config: Any) -> str | Check:
    """Room for the checkpoints to come: each holds the weights, as they are trained, and two Adam moments of what is.

    Raises:
        ConfigError: a file of weights can not be read, or the options are wrong.
    """
    options = read_checkpoint_options(config.medix.checkpoints)
    size, kept = checkpoint_bytes(config), kept_at_once(config, options)
    if size is None:
        return Check("disk", "warn", "size of the model not known here", "download it first, or name a folder")
    folder = Path(str(config.trainer.default_local_dir))
    while not folder.exists():
        folder = folder.absolute().parent
    free, needed = shutil.disk_usage(folder).free, size * kept
    found = f"{free / 1e9:.1f} GB free, about {needed / 1e9:.2f} GB needed for {kept} checkpoint(s)"
    remedy = "lower medix.checkpoints.keep_last, raise trainer.save_freq, or free room"
    return found if free > needed else Check("disk", "fail", found, remedy)


def kept_at_once(config: Any, options: CheckpointOptions) -> int:
    """The last N and the best, and for a moment the new one before the oldest goes; never more than are written."""
    save_freq, steps = config.trainer.save_freq, config.trainer.total_training_steps
    if save_freq <= 0:
        return 1  # a run that the watchdog stops is saved all the same
    written = math.ceil(steps / save_freq) if steps else math.inf
    most = options.keep_last + options.keep_best + 1 if options.keep_last else written
    if most == math.inf:
        raise ConfigError(
            "an end to the checkpoints", "medix.checkpoints.keep_last=0 and no trainer.total_training_steps", "set one"
        )
    return int(min(written, most))


def checkpoint_bytes(config: Any) -> int | None:
    """Size of one checkpoint; None where the model is neither here nor known."""
    model = config.actor_rollout_ref.model
    folder, shape = Path(str(model.path)), None
    stored = sum(count_parameters(file) for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    if not stored or model.lora_rank:
        shape = shape_of(str(model.path))
        if shape is None:
            return None
    parameters = stored or (shape.parameters if shape else 0)
    adapters = shape.lora_parameters(model.lora_rank) if shape and model.lora_rank else 0
    kind = str(config.actor_rollout_ref.actor.fsdp_config.model_dtype)
    return (4 if kind in ("fp32", "float32") else 2) * (parameters + adapters + 2 * (adapters or parameters))


def check_best(config: Any) -> str | Check:
    """That ours is the hand that deletes, and that some step is both saved and validated.

    Raises:
        ConfigError: veRL would delete the best checkpoint.
    """
    trainer, options = config.trainer, read_checkpoint_options(config.medix.checkpoints)
    if not str(trainer.checkpoint_callback_class).endswith(".MedixCheckpointCallback"):
        remedy = "leave trainer.checkpoint_callback_class as the recipe has it"
        found = (
            f"callback {trainer.checkpoint_callback_class}: no best checkpoint, and no save when a guard stops the run"
        )
        return Check("checkpoints", "warn", found, remedy)
    if trainer.max_actor_ckpt_to_keep is not None or trainer.get("remove_previous_ckpt_in_save"):
        raise ConfigError(
            "veRL not to delete checkpoints: it knows no best one",
            f"trainer.max_actor_ckpt_to_keep={trainer.max_actor_ckpt_to_keep}",
            "set trainer.max_actor_ckpt_to_keep=null and medix.checkpoints.keep_last=N",
        )
    both = math.lcm(trainer.save_freq, trainer.test_freq) if min(trainer.save_freq, trainer.test_freq) > 0 else None
    kept = f"the last {options.keep_last}" if options.keep_last else "all"
    if options.keep_best and both is None:
        return Check(
            "checkpoints", "warn", f"{kept}; no best one", "set trainer.save_freq and trainer.test_freq above 0"
        )
    if options.keep_best and both != trainer.save_freq:
        found = f"{kept}, and the best of every {both} steps: others are saved but not validated"
        return Check("checkpoints", "warn", found, "make trainer.save_freq a multiple of trainer.test_freq")
    return f"{kept}, and the best by {options.metric} ({options.mode})" if options.keep_best else kept


def count_parameters(weights: Path) -> int:
    """Number of parameters that the header of a safetensors file names; the weights themselves are not read."""
    try:
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length) if length < weights.stat().st_size else b"")
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("readable weights", f"{weights}: {error}", "build or download the model again") from error
