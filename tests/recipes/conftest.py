"""One composition of each configuration for all tests of this folder: it takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from omegaconf import DictConfig

from medix.run_config import compose_config


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """`composed(name, *overrides)`: treat the result as read-only."""

    @cache
    def compose(name: str, *overrides: str) -> DictConfig:
        return compose_config(name, overrides)

    return compose
