"""Shared here: one composition of each configuration, as it takes seconds; and checkouts for the launcher."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig

from medix_verl.run_config import compose_config
from tests.recipes.launcher import FAKE_HF, FAKE_MEDIX, FAKE_NVIDIA_SMI, FAKE_PYTHON, ROOT, Checkout


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """`composed(name, *overrides)`: treat the result as read-only."""

    @cache
    def compose(name: str, *overrides: str) -> DictConfig:
        return compose_config(name, overrides)

    return compose


@pytest.fixture
def clone(tmp_path: Path) -> Checkout:
    root, commands = tmp_path / "clone", tmp_path / "bin"
    commands.mkdir()
    shutil.copytree(ROOT / "recipes", root / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    return Checkout(root, commands)


@pytest.fixture
def equipped(clone: Checkout) -> Checkout:
    """Every command, and as many GPUs as FAKE_GPUS says."""
    commands = {"medix": FAKE_MEDIX, "hf": FAKE_HF, "nvidia-smi": FAKE_NVIDIA_SMI, "python": FAKE_PYTHON}
    for name, text in commands.items():
        clone.fake(name, text)
    return clone
