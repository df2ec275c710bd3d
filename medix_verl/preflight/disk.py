"""Checkpoints, downloads and disk: is there room, does the hub give us the models, and who deletes checkpoints?"""

from __future__ import annotations

import math
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from medix.errors import ConfigError
from medix_verl.preflight.check import Check
from medix_verl.preflight.memory import read_plan
from medix_verl.preflight.memory_estimate import checkpoint_gb
from medix_verl.preflight.model import hub_name, shape_of
from medix_verl.training.checkpoints import CheckpointOptions, read_checkpoint_options

HUB_CACHE = Path(HF_HUB_CACHE)
DATA_GB = 24.0
"""The released training data, prepared. `datasets` copies it once more, as Arrow, into its cache."""


def check_disk(config: Any) -> str | Check:
    """Check the room for what this run has still to write, added up for each disk: checkpoints, models, data."""
    if checkpoint_bytes(config) is None:
        return Check("warn", "size of the model not known here", "Download it first, or name a folder.")
    disks: dict[int, list[tuple[str, float, Path]]] = defaultdict(list)
    for what, size, folder in needs(config):
        there = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
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
    parts += [(f"model {name}", gb, HUB_CACHE) for name, gb in downloads(config)]
    files = [config.data.train_files, config.data.val_files]
    if config.trainer.device == "cuda":
        sizes = [Path(str(file)).stat().st_size / 1e9 for file in files if Path(str(file)).is_file()]
        data = sum(sizes) or DATA_GB
        cache = HUB_CACHE.parent / "datasets"
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
    plan, _ = read_plan(config)
    return None if plan is None else round(checkpoint_gb(plan) * 1e9)


def check_best(config: Any) -> str | Check:
    """Check that only our callback deletes checkpoints, and that some step is both saved and validated."""
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


def models_of(config: Any) -> dict[str, str]:
    """Return every hub name that a run needs -> the knob that names it."""
    embedder = config.medix.scorer.embedder
    named = {str(config.actor_rollout_ref.model.path): "MODEL"}
    if config.reward.reward_model.enable:
        named[str(config.reward.reward_model.model_path)] = "JUDGE_MODEL"
    if embedder.get("kind", "") == "sentence_transformers":
        named[str(embedder.model)] = "EMBEDDER"
    return {name: knob for name, knob in named.items() if hub_name(name)}


def check_hub_models(config: Any) -> str | Check:
    """Ask the hub for each model that is not in the local cache: it may be gated, misspelt, or out of reach."""
    from httpx import HTTPError
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    missing = {name: k for name, k in models_of(config).items() if not try_to_load_from_cache(name, "config.json")}
    if not missing:
        return "folders, or in the hub client's cache"
    for name, knob in missing.items():
        remedy = f"Correct {knob}, or download the model elsewhere and set {knob}=FOLDER."
        try:
            HfApi().auth_check(name)
        except GatedRepoError:
            raise ConfigError(
                f"{name} is gated, and this account has no access.",
                f"Accept its terms on its page, then `hf auth login`; or set {knob}=FOLDER.",
            ) from None
        except RepositoryNotFoundError:
            raise ConfigError(f"The hub has no model {name}, or none for this account.", remedy) from None
        except (OfflineModeIsEnabled, HTTPError, OSError) as error:
            reason = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else type(error).__name__
            return Check("warn", f"{name}: the hub can not be asked ({reason})", remedy)
    return f"to be downloaded: {', '.join(missing)}"
