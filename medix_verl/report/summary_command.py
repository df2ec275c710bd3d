"""`medix summary`: writes summary.json and prints the closing table of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

ARTEFACTS = {
    "summary.json": "these figures",
    "metrics.jsonl": "every metric of every step",
    "curve.png": "reward and every component by step",
    "rollouts/scored.jsonl": "every scored response with its breakdown and the judge's reply",
    "report.html": "the run on one page",
    "export": "the trained model, a Hugging Face folder",
    "eval/compare.md": "base and trained model on the held-out task, with intervals",
}
"""Path in the run's folder -> what it is; those that exist are listed."""


def summary(
    run_dir: Annotated[Path, typer.Argument(help="folder of the run, e.g. outputs/demo")],
    algorithm: Annotated[str, typer.Option(help="named in the summary")],
    seconds_total: Annotated[float, typer.Option(help="wall-clock seconds of the whole recipe")],
) -> None:
    """Write RUN/summary.json and print the closing table."""
    from medix_verl.report.summary import summarise

    figures = summarise(run_dir, seconds_total, algorithm)
    (run_dir / "summary.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    console = Console()
    console.print(_figures_table(figures))
    console.print(_artefacts_table(run_dir))


def _figures_table(figures: dict[str, Any]) -> Table:
    table = Table(title=f"held-out figures, {figures['steps']} steps of {figures['algorithm']}")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in ("val_reward", "accuracy", "format", "modality"):
        table.add_row(name.removeprefix("val_"), f"{figures[f'{name}_before']:.2f}", f"{figures[f'{name}_after']:.2f}")
    table.add_section()
    table.add_row("seconds per step, median", "", f"{figures['seconds_per_step_median']:.1f}")
    table.add_row("seconds in all", "", f"{figures['seconds_total']:.0f}")
    pearson = figures["rollout_actor_probs_pearson_corr_min"]
    table.add_row("rollout and actor agree (Pearson, least)", "", "-" if pearson is None else f"{pearson:.4f}")
    return table


def _artefacts_table(run_dir: Path) -> Table:
    table = Table("file", "what it is", title="look at")
    for name, meaning in ARTEFACTS.items():
        if (run_dir / name).exists():
            table.add_row(str(run_dir / name), meaning)
    return table
