"""One composition of the CPU recipe for all tests of this folder, as it takes seconds."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from medix_verl.run_config import compose_config


@pytest.fixture(scope="session")
def composed_cpu() -> Any:
    return compose_config("medix_cpu", ["medix.run_dir=/tmp/run"])


@pytest.fixture
def config(composed_cpu: Any) -> Any:
    """A copy, to be changed at will."""
    from omegaconf import OmegaConf

    changed = copy.deepcopy(composed_cpu)
    OmegaConf.set_struct(changed, False)
    return changed
