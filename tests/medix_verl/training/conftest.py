"""The CPU recipe's configuration, composed once."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from medix_verl.run_config import compose_config


@pytest.fixture(scope="session")
def composed() -> Any:
    return compose_config("medix_cpu")


@pytest.fixture
def config(composed: Any) -> Any:
    """A copy that a test may change."""
    return OmegaConf.create(OmegaConf.to_container(composed))
