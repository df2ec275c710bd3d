"""Overrides as training takes them, `medix.reward.components.embed_accuracy.weight=0`, for `medix score`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from medix.errors import ConfigError

ROOT = "medix.reward."


def is_override(argument: str) -> bool:
    return argument.lstrip("+").startswith(ROOT) and "=" in argument


def apply_overrides(config: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`config` (the mapping under `medix.reward`) with each override put in.

    Raises:
        ConfigError: a value that is no YAML, or a path that runs through a value.
    """
    for override in overrides:
        path, _, text = override.lstrip("+").removeprefix(ROOT).partition("=")
        try:
            value = yaml.safe_load(_hydra_to_yaml(text))
        except yaml.YAMLError as error:
            raise ConfigError(f"a value in {override!r}", str(error).splitlines()[0], "write NAME=VALUE") from error
        *parents, last = path.split(".")
        place = config
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"a mapping at {name!r} of {override!r}", repr(place), "correct the path")
        place[last] = value
    return config


def _hydra_to_yaml(text: str) -> str:
    # Hydra's `{path:x.py:f,weight:0.1}` needs no blank after the key; YAML's flow mapping does.
    if not text.startswith("{"):
        return text
    parts = [part.split(":", 1) for part in text[1:].removesuffix("}").split(",")]
    return "{" + ", ".join(": ".join(piece.strip() for piece in part) for part in parts) + "}"
