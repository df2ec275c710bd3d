"""Where metrics go beside `metrics.jsonl`: veRL's trackers, kept in the run's folder and carried on by a resume.

Tracker names are veRL 0.9.1's (`trainer.logger`); LOGGER= of the recipes sets them.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix.options import suggest

PACKAGES = {
    **{"console": "", "file": "", "wandb": "wandb", "tensorboard": "tensorboard", "trackio": "trackio"},
    **{"mlflow": "mlflow", "swanlab": "swanlab", "clearml": "clearml", "rl_insight": "rl_insight"},
    "vemlp_wandb": "volcengine_ml_platform",
}
"""veRL's name of a tracker -> the package that it needs."""


def logger_names(config: Any) -> tuple[str, ...]:
    """The trackers of `trainer.logger`, checked now and not a minute into veRL's start.

    Raises:
        ConfigError: an unknown name, a package that is not installed, or no `file`, by which the run is watched.
    """
    chosen = config.trainer.logger
    names = (chosen,) if isinstance(chosen, str) else tuple(str(name) for name in chosen)
    for name in names:
        if name not in PACKAGES:
            raise ConfigError("trackers that veRL knows in trainer.logger", repr(name), suggest(name, PACKAGES))
        if PACKAGES[name] and importlib.util.find_spec(PACKAGES[name]) is None:
            fix = "pip install -e '.[loggers]'" if name in ("wandb", "tensorboard", "trackio") else "pip install it"
            raise ConfigError(f"the package {PACKAGES[name]} for the tracker {name}", "none", fix)
    if "file" not in names:
        expected = "`file` in trainer.logger: metrics.jsonl and the guards live on it"
        raise ConfigError(expected, ", ".join(names), f"trainer.logger=[{','.join((*names, 'file'))}]")
    return names


def logger_environment(
    run_dir: Path, names: Sequence[str], environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What the trackers read from the environment; what the user has set there stays."""
    folder = run_dir.resolve()
    wanted: dict[str, str] = {}
    if "tensorboard" in names:
        wanted["TENSORBOARD_DIR"] = str(folder / "tensorboard")
    if "trackio" in names:
        wanted["TRACKIO_DIR"] = str(folder / "trackio")
    if "mlflow" in names:
        wanted["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    if "wandb" in names:
        # One run there for all attempts: W&B goes on with the id that it knows.
        wanted |= {"WANDB_DIR": str(folder), "WANDB_DATA_DIR": str(folder / "wandb")}
        wanted |= {"WANDB_RUN_ID": _kept_id(folder / "wandb_run_id"), "WANDB_RESUME": "allow"}
    return {name: value for name, value in wanted.items() if not environment.get(name)}


def _kept_id(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
