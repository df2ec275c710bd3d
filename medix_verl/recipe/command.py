"""`medix recipe`: what the run_*.sh of recipes/medix start."""

from __future__ import annotations

from typing import Annotated

import typer


def recipe(
    name: Annotated[str, typer.Argument(help="a file of recipes/medix/config, without .yaml: medix_cpu, medix_7b ...")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides")] = None,
    knobs: Annotated[bool, typer.Option("--knobs", help="list the knobs and start nothing")] = False,
) -> None:
    """Carry out a recipe, from its checks to its report. Knobs are environment variables; DRY_RUN=1 only shows it."""
    if knobs:
        from rich.console import Console
        from rich.table import Table

        from medix_verl.recipe.knobs import KNOBS

        table = Table("knob", "default", "meaning")
        for knob, entry in KNOBS.items():
            table.add_row(knob, entry.default, entry.help)
        Console().print(table)
        return
    from medix_verl.recipe.stages import launch

    launch(name, overrides or [])
