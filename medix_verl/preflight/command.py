"""`medix preflight`: every check of a run, as a table or as JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def preflight(
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, as given to the recipe")] = None,
    config_name: Annotated[str, typer.Option(help="a file of recipes/medix/config, without .yaml")] = "medix_cpu",
    gpu_memory_gb: Annotated[
        float | None, typer.Option(help="estimate for cards of this size, on a machine without them")
    ] = None,
    config_only: Annotated[
        bool, typer.Option("--config-only", help="leave out what needs model files, data files or running scorers")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="trace one update of the real model class, without its memory (minutes)")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Check machine, model, data, reward, judge and embedder before anything starts."""
    from medix_verl.preflight.check import failed, table
    from medix_verl.preflight.checks import run_checks
    from medix_verl.run_config import compose_config

    config = compose_config(config_name, overrides or [])
    if rehearse:
        _show_rehearsal(config, as_json)
        return
    console = Console(stderr=True)
    with console.status("preflight", spinner="line") as status:
        checks = []
        for check in run_checks(config, gpu_memory_gb, config_only):
            checks.append(check)
            status.update(f"preflight: {check.name} done")
    if as_json:
        print(json.dumps({"checks": [check.as_dict() for check in checks], "ok": not failed(checks)}))
    else:
        Console().print(table(checks))
    for check in failed(checks):
        typer.echo(f"error: {check.name}: {check.found} Fix: {check.remedy}", err=True)
    if failed(checks):
        raise typer.Exit(2)


def _show_rehearsal(config: Any, as_json: bool) -> None:
    from medix_verl.preflight.rehearsal import rehearse

    with Console(stderr=True).status("rehearsing one update", spinner="line"):
        rows = rehearse(config)
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("part of an update, on one GPU", "rehearsed", "estimated", "difference", title="rehearsal, GB")
    for part, row in rows.items():
        share = f"{row['estimated'] / row['rehearsed'] - 1:+.0%}" if row["rehearsed"] > 0.05 else ""
        table.add_row(part, f"{row['rehearsed']:.1f}", f"{row['estimated']:.1f}", share)
    Console().print(table)
