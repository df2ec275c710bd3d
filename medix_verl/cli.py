"""The `medix` command. Each sub-command lives in the room it belongs to and is added here."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from data_prep.command import prepare_command
from evaluation.command import eval_app
from medix.errors import MedixError
from medix_verl.export.command import export
from medix_verl.preflight.command import preflight
from medix_verl.recipe.command import recipe
from medix_verl.report.command import report, summary
from medix_verl.training.command import config, train
from reward_fns.command import score

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def _root() -> None:
    """Open-ended medical reinforcement learning on veRL."""


app.command("prepare")(prepare_command)
app.command("score")(score)
app.command("preflight")(preflight)
app.command("recipe")(recipe)
app.command("config")(config)
app.command("train")(train)
app.command("export")(export)
app.command("summary")(summary)
app.command("report")(report)
app.add_typer(eval_app, name="eval")


def main() -> None:
    """Run a sub-command; an expected error is one message on stderr and exit code 2, never a traceback."""
    try:
        app()
    except MedixError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
