"""Is this the environment that the project was written for?"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from medix.errors import ConfigError
from medix_verl.preflight.check import Check


def check_versions() -> str | Check:
    """Installed versions against the pins of setup.py, for the extra (cpu or gpu) that fits the installed torch."""
    from packaging.requirements import Requirement

    extra = "cpu" if "+cpu" in _version("torch") else "gpu"
    off = []
    for text in importlib.metadata.requires("medix") or []:
        requirement = Requirement(text)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        found = _version(requirement.name)
        if not found or not requirement.specifier.contains(found, prereleases=True):
            off.append(f"{requirement.name} {found or 'missing'} (pinned {requirement.specifier})")
    if off:
        return Check("versions", "fail", "; ".join(off), f"pip install -e '.[{extra}]', or `make setup` on a CPU")
    return f"all pins of the extra '{extra}' are met"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_platform(device: str) -> str:
    """The veRL platform in force, asked of veRL itself in a fresh process.

    Raises:
        ConfigError: it is not the one this profile needs (veRL hides why a plugin did not load).
    """
    code = "from verl.plugin.platform import get_platform; print('platform:', get_platform().device_name)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=os.environ)
    found = next((line.split()[-1] for line in run.stdout.splitlines() if line.startswith("platform:")), "")
    if found != device:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ConfigError(
            f"veRL's platform to be {device}",
            f"{found or last[0]}",
            "for the CPU profile start through recipes/medix/run_cpu.sh, which sets VERL_PLATFORM=cpu",
        )
    return f"veRL runs on {found}"


def check_model_folder(path: str) -> str:
    """A Hugging Face folder with weights, tokenizer and processor; a hub name is passed through."""
    folder = Path(path)
    if not folder.exists() and "/" in path and not path.startswith((".", "/", "outputs")):
        return f"{path}: taken as a hub name"
    if not folder.is_dir():
        raise ConfigError(
            "a model folder", f"none at {path}", f"python -m examples.tiny_vlm --out {path}, or set MODEL="
        )
    wanted = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
    missing = [name for name in wanted if not (folder / name).exists()]
    if not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ConfigError(f"a whole model in {path}", f"no {', '.join(missing)}", "build or download the model again")
    return f"{path} holds weights, tokenizer and processor"
