"""`medix eval`: the stages `generate`, `judge`, `score` and `report`, all of them as `run`, and `compare`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from evaluation import arguments as a
from evaluation.calibrate.command import calibrate

eval_app = typer.Typer(
    no_args_is_help=True, help="Evaluate models on medical benchmarks with a judge that can be checked."
)


@eval_app.command()
def generate(
    model: a.Model,
    tasks: a.Tasks,
    out: a.Out,
    backend: a.BackendOption = a.BackendName.auto,
    model_url: a.ModelUrl = None,
    model_key_env: a.ModelKey = "",
    prompt: a.Prompt = a.PromptName.bare,
    max_tokens: a.MaxTokens = None,
    temperature: a.Temperature = 0.0,
    seed: a.Seed = None,
    limit: a.Limit = None,
    data: a.Data = None,
    in_flight: a.InFlight = 64,
    timeout_s: a.Timeout = 180.0,
    retries: a.Retries = 4,
    batch_size: a.Batch = 16,
) -> None:
    """Stage 1: ask the questions that have no response yet."""
    from evaluation.generate import generate as stage
    from evaluation.run_folder import RunFolder

    options = a.generate_options(tasks, prompt.value, max_tokens, temperature, seed, limit, data or [], in_flight)
    opened = a.open_backend(
        backend, model, model_url or [], model_key_env, options.decoding, in_flight, timeout_s, retries, batch_size, out
    )
    counts = asyncio.run(stage(RunFolder(out), opened, options))
    typer.echo(
        f"generate: {counts.items} items, {counts.already} already answered, "
        f"{counts.answered} answered, {counts.failed} without a response, {counts.refused} rows of the sources refused"
    )


@eval_app.command()
def judge(
    out: a.Out,
    judge_url: a.JudgeUrl = None,
    judge_model: a.JudgeModel = None,
    judge_key_env: a.JudgeKey = "",
    votes: a.Votes = 1,
    judge_temperature: a.JudgeTemperature = None,
    judge_sees_images: a.JudgeImages = False,
    rubric: a.RubricOption = None,
    judge_failed_only: a.FailedOnly = False,
    in_flight: a.InFlight = 64,
    timeout_s: a.Timeout = 180.0,
    retries: a.Retries = 4,
) -> None:
    """Stage 2: have the responses judged that no rule is certain of."""
    from evaluation.judging.stage import judge as stage
    from evaluation.run_folder import RunFolder

    judges = a.judge_options(
        judge_model or [],
        judge_url or [],
        judge_key_env,
        votes,
        judge_temperature,
        judge_sees_images,
        in_flight,
        timeout_s,
        retries,
    )
    counts = asyncio.run(stage(RunFolder(out), judges, rubric.value if rubric else None, judge_failed_only))
    typer.echo(
        f"judge: {counts.wanted} needed, {counts.already} already judged, "
        f"{counts.judged} judged, {counts.failed} failed"
    )


@eval_app.command()
def score(
    out: a.Out,
    max_unscored: a.MaxUnscored = 0.02,
    prices: a.PriceOption = "",
    calibration: a.Calibration = None,
) -> None:
    """Stage 3: figures with intervals, as scores.json, scores.csv and scores.md."""
    from evaluation.ledger import read_prices
    from evaluation.run_folder import RunFolder
    from evaluation.score import markdown
    from evaluation.score import score as stage

    typer.echo(markdown(stage(RunFolder(out), read_prices(prices), max_unscored, calibration)))


@eval_app.command()
def report(out: a.Out) -> None:
    """Stage 4: report.html with every item, its image, response, verdicts and reasons."""
    from evaluation.report import write_report
    from evaluation.run_folder import RunFolder

    typer.echo(f"report: {write_report(RunFolder(out))}")


@eval_app.command()
def run(
    model: a.Model,
    tasks: a.Tasks,
    out: a.Out,
    backend: a.BackendOption = a.BackendName.auto,
    model_url: a.ModelUrl = None,
    model_key_env: a.ModelKey = "",
    prompt: a.Prompt = a.PromptName.bare,
    max_tokens: a.MaxTokens = None,
    temperature: a.Temperature = 0.0,
    seed: a.Seed = None,
    limit: a.Limit = None,
    data: a.Data = None,
    judge_url: a.JudgeUrl = None,
    judge_model: a.JudgeModel = None,
    judge_key_env: a.JudgeKey = "",
    votes: a.Votes = 1,
    judge_temperature: a.JudgeTemperature = None,
    judge_sees_images: a.JudgeImages = False,
    rubric: a.RubricOption = None,
    judge_failed_only: a.FailedOnly = False,
    max_unscored: a.MaxUnscored = 0.02,
    prices: a.PriceOption = "",
    calibration: a.Calibration = None,
    in_flight: a.InFlight = 64,
    timeout_s: a.Timeout = 180.0,
    retries: a.Retries = 4,
    batch_size: a.Batch = 16,
) -> None:
    """All four stages. Run again to resume: what is done is not done twice."""
    if not judge_failed_only:
        generate(
            model, tasks, out, backend, model_url, model_key_env, prompt, max_tokens, temperature, seed, limit, data,
            in_flight, timeout_s, retries, batch_size,
        )  # fmt: skip
    judge(
        out, judge_url, judge_model, judge_key_env, votes, judge_temperature, judge_sees_images, rubric,
        judge_failed_only, in_flight, timeout_s, retries,
    )  # fmt: skip
    try:
        score(out, max_unscored, prices, calibration)
    finally:
        # Over the budget for unscored items the report is what shows why.
        report(out)


@eval_app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="run folder")],
    second: Annotated[Path, typer.Argument(metavar="B", help="run folder on the same items")],
    out: Annotated[Path | None, typer.Option(help="also write the comparison as JSON")] = None,
) -> None:
    """Paired difference B - A with its interval, and what the items could have shown."""
    import json

    from evaluation.compare import compare as compare_runs
    from evaluation.compare import describe
    from evaluation.run_folder import RunFolder

    result = compare_runs(RunFolder(first), RunFolder(second))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    typer.echo(describe(result))


@eval_app.command()
def leaderboard(
    out: a.Out,
    name: Annotated[str, typer.Option(help="the model's name on the leaderboard")],
    into: Annotated[Path, typer.Option(help="folder for the zip")] = Path(),
) -> None:
    """A zip of a finished run in the layout of the released harness."""
    from evaluation.leaderboard import write_leaderboard_zip
    from evaluation.run_folder import RunFolder

    typer.echo(f"leaderboard: {write_leaderboard_zip(RunFolder(out), name, into)}")


eval_app.command()(calibrate)
