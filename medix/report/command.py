"""`medix report`: from a run folder to a page that explains what the policy is learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medix.errors import DataError


def report(
    runs: Annotated[list[Path], typer.Argument(help="a run's folder")],
    curve_only: Annotated[bool, typer.Option(help="write curve.png and curve.csv only")] = False,
) -> None:
    """Write RUN/report.html."""
    for run in runs:
        if not run.is_dir():
            raise DataError("a run's folder", f"none at {run}", "name a folder such as outputs/demo")
    from medix.report.curve import write_curve

    for run in runs:
        for path in write_curve(run):
            print(path)
