"""Build the composite that a configuration describes: a preset's components, the overrides on them, and your own.

The presets are the Hydra group files that training uses, so that there is one copy of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError
from medix.files import read_mapping, shipped
from medix.options import read_options, suggest
from reward_fns.component import Component
from reward_fns.composite import AT_ONCE, OK_SUFFIX, RESERVED, Composite, Weighted
from reward_fns.custom import CustomComponent
from reward_fns.embed_accuracy import EmbedAccuracy
from reward_fns.format import Format
from reward_fns.llm_accuracy import LlmAccuracy
from reward_fns.modality import Modality
from reward_fns.scorers.types import Scorers

PRESET_DIR: Final = shipped("recipes/medix") / "config" / "reward_preset"

COMPONENTS: Final[dict[str, Any]] = {
    "llm_accuracy": LlmAccuracy,
    "embed_accuracy": EmbedAccuracy,
    "modality": Modality,
    "format": Format,
}
"""Name in the configuration -> class. Its dataclass fields are its options."""

_KEYS = ("preset", "components", "components_of")
_WHERE = "medix.reward.components"


def load_preset(name: str) -> dict[str, Any]:
    """Return what a preset sets under `medix`: `reward`, and `scorer` if it needs scorers of its own.

    Args:
        name: name of a file in `recipes/medix/config/reward_preset/`, or path of a YAML file of the same form.

    Raises:
        ConfigError: there is no such preset.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESET_DIR / f"{name}.yaml"
    names = sorted(path.stem for path in PRESET_DIR.glob("*.yaml"))
    if not path.is_file() or (path.parent == PRESET_DIR and name not in names):
        raise ConfigError(f"There is no reward preset {name!r}.", suggest(name, names))
    settings: dict[str, Any] = read_mapping(path).get("medix") or {}
    if not isinstance(settings, dict) or not isinstance((settings.get("reward") or {}).get("components"), dict):
        raise ConfigError(f"{path} names no components.", "Write them under medix: reward: components: as strict.yaml.")
    return settings


def build_composite(config: Mapping[str, Any], scorers: Scorers, at_once: int = AT_ONCE) -> Composite:
    """Return the composite that the plain mapping under `medix.reward` describes.

    Args:
        config: `{preset: strict | paper, components: {name: {weight, ...options, path?}}}`. What it does not name is
            the preset's; a weight of 0, or null in place of the options, switches a component off. `components_of`
            is what Hydra's group `reward_preset` adds: the preset whose options `components` spells out.
        scorers: what answers for judge and embedder.
        at_once: responses worked on at once; somewhat more than the judge's calls in flight.

    Raises:
        ConfigError: unknown preset, component or option (the right name is suggested), a useless weight, or a
            component under a name that the record needs.
    """
    preset = _preset(config)
    merged: dict[str, dict[str, Any]] = dict(load_preset(preset)["reward"]["components"])
    for name, options in _components(config).items():
        if options is not None and not isinstance(options, Mapping):
            where = f"{_WHERE}.{name}"
            raise ConfigError(f"{where} is {options!r}, not a mapping.", f"Write {where}.weight={options}")
        merged[name] = {**merged.get(name, {}), **(options if options is not None else {"weight": 0.0})}
    weights = {name: _weight(name, options) for name, options in merged.items()}
    total = sum(weights.values())
    if total <= 0:
        raise ConfigError("No component has a weight above 0.", f"Set {_WHERE}.NAME.weight.")
    parts = []
    for name, options in merged.items():
        rest = {key: value for key, value in options.items() if key != "weight"}
        parts.append(Weighted(name, _build(name, rest), weights[name], weights[name] / total, rest))
    return Composite(preset, parts, scorers, at_once)


def _preset(config: Mapping[str, Any]) -> str:
    for name in sorted(set(config) - set(_KEYS), key=str):
        raise ConfigError(f"There is no key medix.reward.{name}.", suggest(str(name), _KEYS))
    preset, group = str(config.get("preset") or "strict"), config.get("components_of")
    if group is not None and group != preset:
        # The group's options lie over the preset's: `strict` would be trained under the name `paper`.
        raise ConfigError(
            f"medix.reward.preset={preset} stands over the components of the preset {group!r}.",
            f"Name the preset of reward_preset=NAME in `preset` and in `components_of`, e.g. reward_preset={preset}.",
        )
    return preset


def _components(config: Mapping[str, Any]) -> Mapping[str, Any]:
    components = config.get("components") or {}
    if not isinstance(components, Mapping):
        raise ConfigError(f"{_WHERE} is {components!r}, not a mapping.", f"Write {_WHERE}.NAME.weight=0.1")
    for name in components:
        if not isinstance(name, str) or name in RESERVED or name.endswith(OK_SUFFIX):
            other = f"my_{name}".removesuffix(OK_SUFFIX)
            raise ConfigError(
                f"A component can not be called {name!r}: the record of a response has a key of that name.",
                f"Choose another name, e.g. {other}.",
            )
    return components


def _weight(name: str, options: Mapping[str, Any]) -> float:
    weight = options.get("weight")
    where = f"{_WHERE}.{name}.weight"
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise ConfigError(f"{where} is {weight!r}, not a finite number of at least 0.", f"Set {where}, e.g. to 0.1.")
    return float(weight)


def _build(name: str, options: Mapping[str, Any]) -> Component:
    rest = {key: value for key, value in options.items() if key != "path"}
    where = f"{_WHERE}.{name}"
    if options.get("path"):
        return CustomComponent(name, str(options["path"]), rest)
    if name not in COMPONENTS:
        hint = f"{suggest(name, COMPONENTS)} A component of your own needs {where}.path=FILE.py:NAME"
        raise ConfigError(f"There is no component {name!r}.", hint)
    component: Component = read_options(COMPONENTS[name], rest, where, also=("weight", "path"))
    return component
