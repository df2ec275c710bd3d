"""`medix train` and `medix config`: veRL's own entry point with our Hydra directory, under watch."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides, after --")]
ConfigName = Annotated[str, typer.Option(help="a file of recipes/medix/config, without .yaml")]


def config(config_name: Annotated[str, typer.Argument()], overrides: Overrides = None) -> None:
    """Print the resolved configuration of a recipe; starts nothing."""
    from medix_verl.run_config import compose_config
    from medix_verl.training.record import settings_text

    print(settings_text(compose_config(config_name, overrides or [])))


def train(overrides: Overrides = None, config_name: ConfigName = "medix_cpu") -> None:
    """Train: records the run, starts veRL, follows its metrics, and stops it for a stated reason if need be."""
    from rich.console import Console
    from rich.table import Table

    from medix.processes import child_environment, python_command
    from medix_verl.recipe.knobs import quoted
    from medix_verl.run_config import CONFIG_DIR, compose_config
    from medix_verl.training.checkpoints import keeper_of
    from medix_verl.training.cluster import entry_point, own_ray_environment
    from medix_verl.training.loggers import logger_environment, logger_names
    from medix_verl.training.record import check_run_folder, write_record
    from medix_verl.training.supervisor import Interrupted, Supervisor
    from medix_verl.training.watch import read_watchdog

    # The recipes run this in bash's background, where Ctrl-C is ignored from the start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    composed = compose_config(config_name, overrides or [])
    options, keeper = read_watchdog(composed.medix.watchdog), keeper_of(composed)
    loggers, run_dir = logger_names(composed), Path(str(composed.medix.run_dir))
    done, saved = check_run_folder(composed), (keeper.latest() or 0 if keeper else 0)
    trainer = composed.trainer
    goes_on = trainer.resume_mode == "auto" and not trainer.val_only
    if goes_on and 0 < (trainer.total_training_steps or 0) <= min(done, saved):
        print(f"{run_dir} has all of its {done} steps: nothing is left to train.", file=sys.stderr)
        return

    def begin() -> None:
        write_record(composed)
        rewards = Table("component", "weight", "effective", title="reward")
        for row in json.loads((run_dir / "reward_table.json").read_text()):
            rewards.add_row(row["component"], f"{row['weight']:g}", f"{row['effective']:.4f}")
        Console().print(rewards)
        os.environ.update(child_environment())
        # As an entry point veRL would load them too, but hide why it could not.
        modules = os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")
        os.environ["VERL_USE_EXTERNAL_MODULES"] = ",".join(
            dict.fromkeys(["medix_verl.plugins", *filter(None, modules)])
        )
        os.environ.update(own_ray_environment() | logger_environment(run_dir, loggers))

    hydra = ("--config-dir", str(CONFIG_DIR), "--config-name", config_name)
    command = python_command(
        entry_point(composed), *hydra, *(overrides or []), f"hydra.run.dir={quoted(f'{run_dir}/hydra')}"
    )
    try:
        Supervisor(run_dir, composed.trainer.total_training_steps, options, keeper).run(command, begin)
    except Interrupted as signal_name:
        print(f"stopped by {signal_name}; every process of the run has ended", file=sys.stderr)
        raise typer.Exit(130) from None
