"""`medix report`: a run folder as one page. `medix summary`: the closing table of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from medix.errors import ConfigError, DataError
from medix.files import write_atomically


def report(
    runs: Annotated[list[Path], typer.Argument(help="a run's folder; several are compared")],
    curve_only: Annotated[bool, typer.Option(help="write curve.png and curve.csv only")] = False,
    out: Annotated[Path | None, typer.Option(help="where a comparison goes")] = None,
    data: Annotated[
        Path | None, typer.Option(help="prepared data with the pictures, if not in the run's folder")
    ] = None,
) -> None:
    """Write RUN/report.html with curve.png and curve.csv, or compare several runs on one page."""
    from medix_verl.report.run_folder import refuse_what_is_no_run

    for run in runs:
        refuse_what_is_no_run(run)
    if len(runs) > 1 and not curve_only:
        from medix_verl.report.compare import write_comparison

        print(write_comparison(runs, out))
        return
    from medix_verl.report.curve import write_curve

    for run in runs:
        curves: tuple[Path, ...] = ()
        try:
            curves = write_curve(run)
        except (DataError, ConfigError) as error:
            if curve_only:
                raise
            typer.echo(f"no curve.png and curve.csv: {error}", err=True)
        if not curve_only:
            from medix_verl.report.page import write_report

            print(write_report(run, data))
            _fill_card(run)
        for path in curves:
            print(path)


def _fill_card(run: Path) -> None:
    """Write the card of the run's exported model again: evaluation and summary come after the export."""
    if (run / "export").is_dir():
        from medix_verl.export.card import fill_card

        fill_card(run / "export", run)


def summary(
    run_dir: Annotated[Path, typer.Argument(help="folder of the run, e.g. outputs/demo")],
    seconds_total: Annotated[float, typer.Option(help="wall-clock seconds of the whole recipe")],
) -> None:
    """Write RUN/summary.json and print the closing table."""
    from medix_verl.report.overview import HELD_OUT, links, summarise
    from medix_verl.report.run_folder import load_run

    run = load_run(run_dir)
    figures, earlier = summarise(run, seconds_total), run.summary.get("seconds_total")
    if run.summary.get("steps") == figures["steps"] and isinstance(earlier, int | float):
        # The same command again trains nothing more: the time of the training stays.
        figures["seconds_total"] = max(figures["seconds_total"], earlier)
    write_atomically(run_dir / "summary.json", json.dumps(figures, indent=2) + "\n")
    _fill_card(run_dir)
    table = Table("", title=f"held-out figures, {figures['steps']} steps of {figures['algorithm']}")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for name in HELD_OUT:
        ends = (figures[f"{name}_{when}"] for when in ("before", "after"))
        table.add_row(name.removeprefix("val_"), *("-" if value is None else f"{value:.2f}" for value in ends))
    table.add_section()
    table.add_row("seconds per step, median", "", f"{figures['seconds_per_step_median']:.1f}")
    table.add_row("seconds in all", "", f"{figures['seconds_total']:.0f}")
    pearson = figures["rollout_actor_probs_pearson_corr_min"]
    table.add_row("rollout and actor agree (Pearson, least)", "", "-" if pearson is None else f"{pearson:.4f}")
    files = Table(Column("file", overflow="fold"), "what it is", title="look at")
    for name, meaning in links(run):
        files.add_row(str(run_dir / name), meaning)
    Console().print(table, files)
