"""Where metrics go beside `metrics.jsonl`: veRL's trackers, kept in the run's folder and carried on by a resume."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix.files import write_atomically
from medix.options import suggest

_OURS = ("wandb", "tensorboard", "trackio")
NAMES = ("console", "file", *_OURS, "mlflow", "swanlab", "clearml", "rl_insight", "vemlp_wandb")
"""veRL 0.9.1's trackers. `_OURS` come with the extra `loggers`."""


def logger_names(config: Any) -> tuple[str, ...]:
    """Return the trackers of `trainer.logger`, checked now and not a minute into veRL's start.

    Raises:
        ConfigError: an unknown name, a package that is not installed, or no `file`, by which the run is watched.
    """
    chosen = config.trainer.logger
    names = (chosen,) if isinstance(chosen, str) else tuple(str(name) for name in chosen)
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"veRL knows no tracker {name!r} (trainer.logger).", suggest(name, NAMES))
        package = "volcengine_ml_platform" if name == "vemlp_wandb" else name
        if name not in ("console", "file") and importlib.util.find_spec(package) is None:
            fix = "-e '.[loggers]'" if name in _OURS else package
            raise ConfigError(f"The tracker {name} needs the package {package}.", f"Run `pip install {fix}`.")
    if "file" not in names:
        raise ConfigError(
            "trainer.logger is without `file`, on which metrics.jsonl and the guards live.",
            f"Set trainer.logger=[{','.join((*names, 'file'))}].",
        )
    return names


def logger_environment(
    run_dir: Path, names: Sequence[str], environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return what the trackers read from the environment; what the user has set there stays."""
    folder, wanted = run_dir.resolve(), dict[str, str]()
    if "wandb" in names:
        # One run there for all attempts: W&B goes on with the id that it knows.
        id_file = run_dir / "wandb_run_id"
        if not id_file.exists():
            write_atomically(id_file, uuid.uuid4().hex[:12] + "\n")
        wanted |= {"WANDB_DIR": str(folder), "WANDB_DATA_DIR": f"{folder}/wandb", "WANDB_RESUME": "allow"}
        wanted |= {"WANDB_RUN_ID": id_file.read_text(encoding="utf-8").strip()}
    places = {"tensorboard": "TENSORBOARD_DIR", "trackio": "TRACKIO_DIR"}
    wanted |= {variable: f"{folder}/{name}" for name, variable in places.items() if name in names}
    if "mlflow" in names:
        wanted["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    return {name: value for name, value in wanted.items() if not environment.get(name)}
