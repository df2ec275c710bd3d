"""`medix supervise`: how the recipes start veRL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def supervise(
    command: Annotated[list[str], typer.Argument(help="the training command, after --")],
    run_dir: Annotated[Path, typer.Option(help="folder of the run")],
    total_steps: Annotated[int | None, typer.Option(help="for the progress bar")] = None,
    stall_minutes: Annotated[float, typer.Option(help="end the run after so long without a sign of life")] = 30.0,
) -> None:
    """Run a training command under watch: guards, metrics.jsonl, and no process left behind."""
    from medix.supervise.supervisor import Interrupted, Supervisor

    try:
        Supervisor(run_dir, total_steps, stall_minutes).run(command)
    except Interrupted as signal_name:
        print(f"stopped by {signal_name}; every process of the run has ended", file=sys.stderr)
        raise typer.Exit(130) from None
