"""`medix report`: from a run folder to a page that explains what the policy is learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medix.errors import ConfigError, DataError


def report(
    runs: Annotated[list[Path], typer.Argument(help="a run's folder; several are compared")],
    curve_only: Annotated[bool, typer.Option(help="write curve.png and curve.csv only")] = False,
    out: Annotated[Path | None, typer.Option(help="where a comparison goes")] = None,
    serve: Annotated[bool, typer.Option(help="serve the page on 127.0.0.1 and follow a live run")] = False,
    port: Annotated[int, typer.Option(help="for --serve; 0 takes a free one")] = 8090,
) -> None:
    """Write RUN/report.html (with curve.png and curve.csv), or compare several runs on one page."""
    for run in runs:
        if not run.is_dir():
            raise DataError("a run's folder", f"none at {run}", "name a folder such as outputs/demo")
    if serve and (len(runs) > 1 or curve_only):
        raise ConfigError("--serve with one run and no --curve-only", "another combination", "medix report RUN --serve")
    if serve:
        from medix_verl.report.serve import serve_run

        serve_run(runs[0], port)
    elif curve_only:
        _write_curves(runs)
    elif len(runs) > 1:
        from medix_verl.report.compare import write_comparison

        print(write_comparison(runs, out))
    else:
        from medix_verl.report.page import write_report

        print(write_report(runs[0]))
        try:
            _write_curves(runs)
        except (DataError, ConfigError) as error:
            typer.echo(f"no curve.png and curve.csv: {error}", err=True)


def _write_curves(runs: list[Path]) -> None:
    from medix_verl.report.curve import write_curve

    for run in runs:
        for path in write_curve(run):
            print(path)
