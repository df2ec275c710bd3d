"""`medix eval`: the stages `generate`, `judge`, `score` and `report`, all of them as `run`, and what else is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluation.options import Asking, Calibrating, Calls, Folder, Judging, Scoring, command
from evaluation.run_folder import RunFolder

if TYPE_CHECKING:
    from evaluation.judging.judge import JudgeOptions

eval_app = typer.Typer(
    no_args_is_help=True, help="Evaluate models on medical benchmarks with a judge that can be checked."
)


@command(eval_app, Folder, Asking, Calls)
def generate(folder: Folder, asking: Asking, calls: Calls) -> None:
    """Stage 1: ask the questions that have no response yet."""
    asyncio.run(_generate(folder, asking, calls, []))


async def _generate(folder: Folder, asking: Asking, calls: Calls, judges: Sequence[JudgeOptions]) -> None:
    """Ask, after all that could make the answers worthless was looked at."""
    from evaluation.backends.endpoint import EndpointBackend
    from evaluation.generate import generate as stage

    _ = asking.local, asking.template  # A wrong one is told before an endpoint is asked.
    async with aclosing(asking.open_backend(calls, folder.out)) as backend:
        for judge in judges:
            await judge.check()
        if isinstance(backend, EndpointBackend):  # The others were looked at when they were made.
            await backend.check()
        counts = await stage(RunFolder(folder.out), backend, asking, calls.in_flight)
    typer.echo(
        f"generate: {counts.items} items, {counts.already} already answered, "
        f"{counts.answered} answered, {counts.failed} without a response, {counts.refused} rows of the sources refused"
    )


@command(eval_app, Folder, Judging, Calls)
def judge(folder: Folder, judging: Judging, calls: Calls) -> None:
    """Stage 2: have the responses judged that no rule is certain of."""
    from evaluation.judging.stage import judge as stage

    counts = asyncio.run(stage(RunFolder(folder.out), judging.judges(calls), judging.rubric, judging.judge_failed_only))
    typer.echo(
        f"judge: {counts.wanted} needed, {counts.already} already judged, "
        f"{counts.judged} judged, {counts.failed} failed"
    )


@command(eval_app, Folder, Scoring)
def score(folder: Folder, scoring: Scoring) -> None:
    """Stage 3: figures with intervals, as scores.json, scores.csv and scores.md."""
    from evaluation.score import markdown
    from evaluation.score import score as stage

    typer.echo(markdown(stage(RunFolder(folder.out), scoring)))


@command(eval_app, Folder)
def report(folder: Folder) -> None:
    """Stage 4: evaluation.html with every item, its image, response, verdicts and reasons."""
    from evaluation.report import write_report

    typer.echo(f"report: {write_report(RunFolder(folder.out))}")


@command(eval_app, Folder, Asking, Judging, Scoring, Calls)
def run(folder: Folder, asking: Asking, judging: Judging, scoring: Scoring, calls: Calls) -> None:
    """All four stages. Run again to resume: what is done is not done twice.

    The judge, the model and the tasks are looked at before the first question is asked.
    """
    from evaluation.judging.stage import rubrics_of

    judges = judging.judges(calls)
    scoring.read_prices(), scoring.metrics()
    if not judging.judge_failed_only:
        rubrics_of({task.name: task.describe() for task in asking.chosen}, judges, judging.rubric)
        asyncio.run(_generate(folder, asking, calls, judges))
    judge(folder, judging, calls)
    try:
        score(folder, scoring)
    finally:
        # Over the budget for unscored items the report is what shows why.
        if (folder.out / "scores.json").is_file():
            report(folder)


@eval_app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="run folder")],
    second: Annotated[Path, typer.Argument(metavar="B", help="run folder on the same items")],
    out: Annotated[Path | None, typer.Option(help="also write the comparison as JSON")] = None,
) -> None:
    """Paired difference B - A with its interval, and what the items could have shown."""
    from evaluation.compare import compare as compare_runs
    from evaluation.compare import describe

    result = compare_runs(RunFolder(first), RunFolder(second))
    if out is not None:
        RunFolder(out.parent).write_json(out.name, result)
    typer.echo(describe(result))


@eval_app.command()
def leaderboard(
    out: Annotated[Path, typer.Option(help="run folder")],
    name: Annotated[str, typer.Option(help="the model's name on the leaderboard")],
    into: Annotated[Path, typer.Option(help="folder for the zip")] = Path(),
) -> None:
    """A zip of a finished run in the layout of the released harness."""
    from evaluation.leaderboard import write_leaderboard_zip

    typer.echo(f"leaderboard: {write_leaderboard_zip(RunFolder(out), name, into)}")


@command(eval_app, Folder, Judging, Calibrating, Calls)
def calibrate(folder: Folder, judging: Judging, calibrating: Calibrating, calls: Calls) -> None:
    """How far a judge can be believed: its verdicts on labelled pairs, by kind of error."""
    from evaluation.calibrate.ontology import ontology_pairs, read_terms
    from evaluation.calibrate.stage import OURS, describe, read_pairs
    from evaluation.calibrate.stage import calibrate as stage

    c = calibrating
    judges = judging.judges(calls)
    labelled = list(
        ontology_pairs(read_terms(c.ontology), c.limit, c.seed) if c.ontology else read_pairs(c.pairs or OURS)
    )
    for options in judges:
        into = folder.out if len(judges) == 1 else folder.out / options.model.replace("/", "_")
        typer.echo(describe(asyncio.run(stage(into, options, judging.rubric or "verdict", labelled, c.max_unscored))))
