"""`medix score`: what a response earns, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

Text = Optional[str]  # noqa: UP045 - typer reads it at run time, also on Python 3.10


def score(
    arguments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[RESPONSE] [medix.reward.…=VALUE] [medix.scorer.…=VALUE]...",
            help="A response, and overrides as in training.",
        ),
    ] = None,
    jsonl: Annotated[Optional[Path], typer.Option(help="Score the rows of a JSONL file.")] = None,  # noqa: UP045
    answer: Annotated[Text, typer.Option(help="Reference answer, for one response.")] = None,
    question: Annotated[str, typer.Option(help="The question, for one response.")] = "",
    modality: Annotated[Text, typer.Option(help="Modality tag, e.g. X_RAY, for one response.")] = None,
    assume_judge: Annotated[Text, typer.Option(help="yes or no: ask no judge.")] = None,
    assume_similarity: Annotated[Optional[float], typer.Option(help="Cosine to assume: load no model.")] = None,  # noqa: UP045
    preset: Annotated[str, typer.Option(help="strict or paper.")] = "strict",
    judge_url: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Judge endpoint, repeatable; `rule-judge` starts the embedded one.", envvar="JUDGE_URL"),
    ] = None,
    judge_model: Annotated[str, typer.Option(help="Model name at the judge.")] = "rule-judge",
    embedder: Annotated[Text, typer.Option(help="Folder, package or hub id of an embedder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Score one response, or the rows of a file: {"response", "answer", "modality", "question"}.

    Rows may state "assume_judge": "yes" | "no" and "assume_similarity": 0.83; then no server and no model is needed.
    The options of these names stand in for rows that do not state it. A hosted judge's key:
    medix.scorer.judge.api_key_env=NAME_OF_THE_VARIABLE.
    """
    import asyncio

    from medix.errors import ConfigError
    from reward_fns.overrides import apply_overrides, is_override
    from reward_fns.rows import Row, make_row, read_rows
    from reward_fns.scoring import score_rows, scorer_settings

    overrides = [argument for argument in arguments or () if is_override(argument)]
    responses = [argument for argument in arguments or () if not is_override(argument)]
    if (len(responses) == 1) == (jsonl is not None) or len(responses) > 1:
        raise ConfigError("one response or --jsonl FILE", f"{len(responses)} responses", "see medix score --help")
    fields = {"answer": answer, "question": question or None, "modality": modality}
    assumed = {"assume_judge": assume_judge, "assume_similarity": assume_similarity}
    given = [f"--{name}" for name, value in fields.items() if value is not None]
    if jsonl is not None and given:
        raise ConfigError("a row's own fields in --jsonl FILE", ", ".join(given), "leave them out")
    if jsonl is None and answer is None:
        raise ConfigError("--answer TEXT beside a response", "none", "add --answer TEXT")
    rows: Iterable[Row] = (
        read_rows(jsonl, assumed)
        if jsonl
        else [make_row({"response": responses[0], **fields, **assumed}, "command line")]
    )
    settings = {
        "reward": {"preset": preset, "components": {}},
        "scorer": scorer_settings(judge_url or (), judge_model, embedder or ""),
    }
    settings = apply_overrides(settings, overrides)
    records: list[dict[str, Any]] = []
    put = _print_json if as_json else records.append
    table = asyncio.run(score_rows(rows, settings["reward"], settings["scorer"], put))
    if not as_json:
        _print(table, records)


def _print_json(record: dict[str, Any]) -> None:
    line = json.dumps(record, ensure_ascii=False)
    # Half a surrogate pair is no character: it stays the escape that JSON has for it.
    typer.echo(line.encode("utf-8", "backslashreplace").decode())


def _print(table_rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = [row["component"] for row in table_rows]
    table = Table(title=None)
    for heading in ("response", "score", *names, "why"):
        table.add_column(heading, justify="left" if heading in ("response", "why") else "right", overflow="fold")
    table.add_row("effective weight", "", *(f"{row['effective']:.4g}" for row in table_rows), "")
    table.add_section()
    for record in records:
        values = ("-" if record[name] is None else f"{record[name]:.4g}" for name in names)
        why = record["details"].get("llm_accuracy", {}).get("why", "")
        name = record["sample_id"].encode("utf-8", "backslashreplace").decode()
        table.add_row(name, f"{record['score']:.4f}", *values, why)
    Console().print(table, markup=False)
