"""Reward components, one file each, the composite and its presets: the files to edit for an ablation.

composite = build_composite({"preset": "strict"}, AssumedScorers(judge_says=True, cosine=0.9))
score = await composite.score(ScoringInput(response, reference="pneumonia", modality="X_RAY"))
score.total, score.flat(), score.record()
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from medix.errors import ConfigError
from medix.options import read_options, suggest
from reward_fns.assumed import AssumedScorers
from reward_fns.composite import AT_ONCE, OK_SUFFIX, RESERVED, Composite, CompositeScore, Weighted
from reward_fns.contracts import Component, ComponentScore, Scorers, ScoringInput
from reward_fns.custom import CustomComponent
from reward_fns.embed_accuracy import EmbedAccuracy
from reward_fns.format import Format
from reward_fns.llm_accuracy import LlmAccuracy
from reward_fns.modality import Modality
from reward_fns.presets import load_preset

__all__ = [
    "COMPONENTS",
    "AssumedScorers",
    "Component",
    "ComponentScore",
    "Composite",
    "CompositeScore",
    "Scorers",
    "ScoringInput",
    "build_composite",
]

_KEYS = ("preset", "components", "components_of")

COMPONENTS: dict[str, Any] = {
    "llm_accuracy": LlmAccuracy,
    "embed_accuracy": EmbedAccuracy,
    "modality": Modality,
    "format": Format,
}
"""Name in the configuration -> class. Its dataclass fields are its options."""


def build_composite(config: Mapping[str, Any], scorers: Scorers, at_once: int = AT_ONCE) -> Composite:
    """The composite that the plain mapping under `medix.reward` describes.

    Args:
        config: `{preset: strict | paper, components: {name: {weight, ...options, path?}}}`. What it does not name is
            the preset's; a weight of 0, or null in place of the options, switches a component off. `components_of`
            is what Hydra's group `reward_preset` adds: the preset whose options `components` spells out.
        scorers: who answers for judge and embedder.
        at_once: responses worked on at once; somewhat more than the judge's calls in flight.

    Raises:
        ConfigError: unknown preset, component or option (the right name is suggested), a useless weight, or a
            component under a name that the record needs.
    """
    preset = _preset(config)
    merged: dict[str, dict[str, Any]] = load_preset(preset)
    for name, options in _components(config).items():
        if options is not None and not isinstance(options, Mapping):
            where = f"medix.reward.components.{name}"
            raise ConfigError(f"a mapping at {where}", repr(options), f"write {where}.weight={options}")
        merged[name] = {**merged.get(name, {}), **(options if options is not None else {"weight": 0.0})}
    weights = {name: _weight(name, options) for name, options in merged.items()}
    total = sum(weights.values())
    if total <= 0:
        raise ConfigError("at least one weight above 0", "none", "set medix.reward.components.NAME.weight")
    parts = [_build(name, options, weights[name], total) for name, options in merged.items()]
    return Composite(preset, parts, scorers, at_once)


def _preset(config: Mapping[str, Any]) -> str:
    unknown = set(config) - set(_KEYS)
    if unknown:
        name = str(sorted(unknown, key=str)[0])
        raise ConfigError("known keys under medix.reward", repr(name), suggest(name, _KEYS))
    preset = str(config.get("preset") or "strict")
    group = config.get("components_of")
    if group is not None and group != preset:
        # The group's options lie over the preset's: `strict` would be trained under the name `paper`.
        found = f"medix.reward.preset={preset} over the components of {group!r}"
        raise ConfigError("a preset with its own components", found, f"override reward_preset={preset} instead")
    return preset


def _components(config: Mapping[str, Any]) -> Mapping[str, Any]:
    components = config.get("components") or {}
    if not isinstance(components, Mapping):
        fix = "write medix.reward.components.NAME.weight=0.1"
        raise ConfigError("a mapping at medix.reward.components", repr(components), fix)
    for name in components:
        if not isinstance(name, str) or name in RESERVED or name.endswith(OK_SUFFIX):
            fix = f"choose another name, e.g. my_{name}".removesuffix(OK_SUFFIX)
            raise ConfigError("a component's name that is no key of the record", repr(name), fix)
    return components


def _weight(name: str, options: Mapping[str, Any]) -> float:
    weight = options.get("weight")
    where = f"medix.reward.components.{name}.weight"
    is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not is_number or not math.isfinite(float(weight or 0)) or float(weight or 0) < 0:
        raise ConfigError(f"a finite number >= 0 at {where}", repr(weight), f"set {where}, e.g. 0.1")
    return float(weight or 0)


def _build(name: str, options: Mapping[str, Any], weight: float, total: float) -> Weighted:
    rest = {key: value for key, value in options.items() if key not in ("weight", "path")}
    where = f"medix.reward.components.{name}"
    component: Component
    if options.get("path"):
        component = CustomComponent(name, str(options["path"]), rest)
    elif name in COMPONENTS:
        component = read_options(COMPONENTS[name], rest, where, also=("weight", "path"))
    else:
        hint = f"{suggest(name, COMPONENTS)} A component of your own needs {where}.path=FILE.py:NAME"
        raise ConfigError("known components under medix.reward.components", repr(name), hint)
    return Weighted(name, component, weight, weight / total, {k: v for k, v in options.items() if k != "weight"})
