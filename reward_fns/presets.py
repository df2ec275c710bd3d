"""The presets, read from the Hydra group files that training uses, so that there is one copy of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from medix.errors import ConfigError
from medix.options import suggest

PRESET_DIR: Final = Path(__file__).resolve().parent.parent / "recipes" / "medix" / "config" / "reward_preset"


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESET_DIR.glob("*.yaml"))


def load_preset(name: str) -> dict[str, dict[str, Any]]:
    """Component name -> weight and options.

    Raises:
        ConfigError: there is no preset of that name.
    """
    names = preset_names()
    if name not in names:
        raise ConfigError("a known medix.reward.preset", repr(name), suggest(name, names))
    text = (PRESET_DIR / f"{name}.yaml").read_text(encoding="utf-8")
    components: dict[str, dict[str, Any]] = yaml.safe_load(text)["medix"]["reward"]["components"]
    return components
