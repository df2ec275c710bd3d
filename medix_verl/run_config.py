"""Compose a run's configuration with Hydra, against the installed veRL's own schema, without importing veRL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError
from medix.files import leaves, shipped
from medix.options import suggest

CONFIG_DIR: Final = shipped("recipes/medix") / "config"


def compose_config(name: str, overrides: Sequence[str] = ()) -> Any:
    """Return the resolved configuration that veRL's entry point would see: an OmegaConf `DictConfig`.

    Raises:
        ConfigError: veRL is not installed, or a name or override does not fit the schema.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    spec = find_spec("verl")
    if spec is None or spec.origin is None:
        raise ConfigError("veRL is not installed in this environment.", "Run `make setup`.")
    if name not in (names := recipe_names()):
        raise ConfigError(f"There is no recipe {name!r}.", suggest(name, names))
    search_path = f"hydra.searchpath=[file://{Path(spec.origin).parent / 'trainer' / 'config'}]"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        try:
            config = compose(name, overrides=[*overrides, search_path])
            OmegaConf.resolve(config)
            usual = _composed(name, search_path) if overrides else config
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group set to null
            said = " ".join(str(error).partition("Config search path")[0].split()).rstrip(".")
            keys = dict(leaves(OmegaConf.to_container(_composed(name, search_path))))
            mistyped = re.match(r"Could not override '([^']+)'", said)
            near = get_close_matches(mistyped[1], keys, n=1, cutoff=0.8) if mistyped else []
            raise ConfigError(
                f"An override does not fit {name}.yaml and veRL's schema: {said}.",
                f"{f'Did you mean {near[0]}? ' if near else ''}Correct the key, or put a + before one that is new; "
                "DRY_RUN=1 prints every key there is.",
            ) from error
    # veRL's schema has few types, so a word in the place of a number would fail in the middle of a run.
    for key in (override.partition("=")[0].lstrip("+") for override in overrides):
        old, new = (OmegaConf.select(tree, key, throw_on_resolution_failure=False) for tree in (usual, config))
        if isinstance(old, int | float) and isinstance(new, str):
            raise ConfigError(f"{key} is {new!r}, where {old!r} is usual.", "Give it a value of that kind.")
    return config


def recipe_names() -> list[str]:
    """Return the names that `compose_config` takes."""
    return sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


@lru_cache
def _composed(name: str, *overrides: str) -> Any:
    from hydra import compose

    return compose(name, overrides=list(overrides))
