"""Overrides as training takes them, `medix.reward.components.embed_accuracy.weight=0`, for `medix score`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from medix.errors import ConfigError
from medix.options import suggest

ROOT = "medix."
_EXPONENT = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")


def is_override(argument: str) -> bool:
    return argument.lstrip("+").startswith(ROOT) and "=" in argument


def apply_overrides(config: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`config` (the mapping under `medix`) with each override put in.

    Raises:
        ConfigError: a value that is no YAML, a path that runs through a value, or one outside `config`'s own parts.
    """
    for override in overrides:
        path, _, text = override.lstrip("+").removeprefix(ROOT).partition("=")
        try:
            value = _as_hydra(yaml.safe_load(_hydra_to_yaml(text)))
        except yaml.YAMLError as error:
            raise ConfigError(f"a value in {override!r}", str(error).splitlines()[0], "write NAME=VALUE") from error
        *parents, last = path.split(".")
        if not parents or parents[0] not in config:
            parts = " or ".join(f"{ROOT}{part}.…" for part in config)
            raise ConfigError(f"an override of {parts}", repr(override), suggest(path.split(".")[0], config))
        place = config
        for name in parents:
            if place.get(name) is None:
                place[name] = {}
            place = place[name]
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


def _as_hydra(value: Any) -> Any:
    """`1e-3` is a number to Hydra, and a text to YAML 1.1."""
    if isinstance(value, dict):
        return {name: _as_hydra(part) for name, part in value.items()}
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
