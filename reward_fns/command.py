"""`medix score`: what a response earns and why, and how a run's rollouts would rank under another reward."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Optional

import typer

from medix.errors import ConfigError, MedixError
from medix.options import suggest
from medix.sample import NOT_APPLICABLE
from reward_fns import Composite, build_composite
from reward_fns.presets import load_preset
from reward_fns.ranks import compare
from reward_fns.rows import AssumedScorers, Row, make_row, read_rows

if TYPE_CHECKING:
    from reward_fns.scorers.service import ScorerService

Text = Optional[str]  # noqa: UP045 - typer reads it at run time
PATIENCE_S = 30.0
"""So many seconds without a row are told: a person waits at the terminal."""
HOLD_LIMIT_S: Final = 30.0
"""So long an outage of the scorers is held; in training it is half an hour."""


def score(
    arguments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[RESPONSE] [medix.reward.…=VALUE] [medix.scorer.…=VALUE]...",
            help="A response, and overrides as in training.",
        ),
    ] = None,
    jsonl: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Score the rows of a JSONL file, e.g. RUN/rollouts/scored.jsonl."),
    ] = None,
    reference: Annotated[Text, typer.Option(help="Reference answer, for one response.")] = None,
    question: Annotated[Text, typer.Option(help="The question, for one response.")] = None,
    modality: Annotated[Text, typer.Option(help="Modality tag, e.g. X_RAY, for one response.")] = None,
    assume_judge: Annotated[Text, typer.Option(help="yes or no: ask no judge.")] = None,
    assume_similarity: Annotated[Optional[float], typer.Option(help="Cosine to assume: load no model.")] = None,  # noqa: UP045
    preset: Annotated[str, typer.Option(help="strict, paper, or a YAML file of your own.")] = "strict",
    judge_url: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Judge endpoint, repeatable; `rule-judge` is the one made of rules.", envvar="JUDGE_URL"),
    ] = None,
    judge_model: Annotated[str, typer.Option(help="Model name at the judge.")] = "rule-judge",
    embedder: Annotated[Text, typer.Option(help="Folder, package or hub id; default: the preset's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Score one response, or the rows of a file: {"response", "reference", "modality", "question"}.

    Rows may state "assume_judge": "yes" | "no" and "assume_similarity": 0.83; then no server and no model is needed.
    The options of these names stand in for rows that do not state it. Rows of a run (RUN/rollouts/scored.jsonl) bring
    the run's verdicts and cosines, which stand unless --judge-url or --embedder is given. Verdicts are kept beside the
    file: the same command goes on where it stopped. A hosted judge's key: medix.scorer.judge.api_key_env=VARIABLE.
    """
    overrides = [argument for argument in arguments or () if _is_override(argument)]
    responses = [argument for argument in arguments or () if not _is_override(argument)]
    if len(responses) + (jsonl is not None) != 1:
        raise ConfigError(
            f"{len(responses)} responses{' and --jsonl' if jsonl else ''} are given, not one of both.",
            "Give one response with --reference, or --jsonl FILE.",
        )
    stated = {"reference": reference, "question": question, "modality": modality}
    assumed = {"assume_judge": assume_judge, "assume_similarity": assume_similarity}
    assumed = {name: value for name, value in assumed.items() if value is not None}
    given = ", ".join(f"--{name}" for name, value in stated.items() if value is not None)
    if jsonl is not None and given:
        raise ConfigError(f"{given} is of no use beside --jsonl, whose rows state it.", "Leave it out.")
    if jsonl is None and reference is None:
        raise ConfigError("A response alone can not be scored.", "Add --reference TEXT.")

    scorer = dict(load_preset(preset).get("scorer") or {}) | {"hold_limit_s": HOLD_LIMIT_S}
    scorer["judge"] = {**(scorer.get("judge") or {}), "urls": list(judge_url or ()), "model": judge_model}
    if embedder:
        scorer["embedder"] = {"kind": "sentence_transformers", "model": embedder}
    rows: Iterable[Row] = ()
    if jsonl is not None:
        scorer["cache"] = {"path": f"{jsonl}.verdicts.sqlite"}
        recorded = {"judge": not judge_url, "similarity": not embedder}
        rows = read_rows(jsonl, assumed, frozenset(name for name, is_kept in recorded.items() if is_kept))
    else:
        rows = [make_row({"response": responses[0], **stated, **assumed}, "command line")]
    settings = {"reward": {"preset": preset, "components": {}}, "scorer": scorer}
    apply_overrides(settings, overrides)
    asyncio.run(_score(rows, settings, jsonl is not None, as_json))


async def _score(rows: Iterable[Row], settings: Mapping[str, Any], many: bool, as_json: bool) -> None:
    from reward_fns.scorers.service import ScorerService

    service = ScorerService(settings["scorer"])
    composite = build_composite(settings["reward"], AssumedScorers())
    put = _print_json if as_json else _print_line if many else _print_one
    of_run: list[tuple[str, float, float]] = []
    try:
        if service.options.judge.urls and "judge" in composite.needs:
            service.open(("judge",))  # a missing key fails before the embedder's model is loaded
        if put is _print_line:
            _print_header(composite)
        async for row, record in score_rows(rows, composite, service):
            put(composite, record)
            if row.group is not None and row.run_score is not None:
                of_run.append((row.group, row.run_score, record["score"]))
    finally:
        await service.aclose()
    if of_run:
        typer.echo("\n" + compare(of_run), err=as_json)


async def score_rows(
    rows: Iterable[Row], composite: Composite, service: ScorerService
) -> AsyncIterator[tuple[Row, dict[str, Any]]]:
    """Yield each row with its JSON-able record, in order and as soon as it is scored.

    Raises:
        ConfigError: a scorer is needed that is not named.
        DataError: a row is wrong; those before it have been yielded.
        ScorerError: a scorer failed; whatever was scored by then has been yielded.
    """
    waiting = deque[tuple[Row, asyncio.Task[dict[str, Any]]]]()
    fault = None
    try:
        for row in rows:
            waiting.append((row, asyncio.create_task(_record(row, composite, service))))
    except MedixError as error:
        fault = error
    try:
        while waiting:
            row, task = waiting.popleft()
            yield row, await _told_of_waiting(task, service)
    except MedixError:
        for row, task in waiting:
            if task.done() and task.exception() is None:
                yield row, task.result()
        raise
    finally:
        for _, task in waiting:
            task.cancel()
    if fault is not None:
        raise fault


async def _record(row: Row, composite: Composite, service: ScorerService) -> dict[str, Any]:
    scorers = AssumedScorers(row.assume_judge, row.assume_similarity, service, bool(service.options.judge.urls))
    score = await composite.score(row.item, scorers)
    flat = score.flat()
    values = {part.name: None if flat[part.name] == NOT_APPLICABLE else flat[part.name] for part in composite.parts}
    details = {name: dict(part.details) for name, part in score.components.items()}
    return {"sample_id": row.item.sample_id, "score": score.total, "acc": flat["acc"], **values, "details": details}


async def _told_of_waiting(task: asyncio.Task[dict[str, Any]], service: ScorerService) -> dict[str, Any]:
    start = time.monotonic()
    while not (await asyncio.wait({task}, timeout=PATIENCE_S))[0]:
        asked = [*service.options.judge.urls, f"the embedder {service.options.embedder.model}"]
        typer.echo(
            f"No further row for {time.monotonic() - start:.0f} s; waiting for {' and '.join(asked)}. "
            "What was judged is kept: the same command goes on.",
            err=True,
        )
    return task.result()


def _is_override(argument: str) -> bool:
    return argument.lstrip("+").startswith("medix.") and "=" in argument


def apply_overrides(settings: dict[str, Any], overrides: Iterable[str]) -> None:
    """Put overrides as training takes them into `settings`, the mapping under `medix`; Hydra's own grammar reads them.

    Raises:
        ConfigError: a value that Hydra does not read, a path that runs through a value, or another part than those.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
            value = override.value()
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{text!r} has no readable value: {reason}", "Write NAME=VALUE.") from None
        _, part, *names = override.key_or_group.split(".")
        if part not in settings or not names:
            raise ConfigError(f"{text!r} sets nothing under medix.reward or medix.scorer.", suggest(part, settings))
        place = settings[part]
        for name in names[:-1]:
            if place.get(name) is None:
                place[name] = {}
            place = place[name]
            if not isinstance(place, dict):
                raise ConfigError(f"{name!r} in {text!r} is {place!r}, not a mapping.", "Correct the path.")
        place[names[-1]] = value


def _print_json(_: Composite, record: Mapping[str, Any]) -> None:
    typer.echo(_printable(json.dumps(record, ensure_ascii=False)))


def _print_header(composite: Composite) -> None:
    typer.echo(f"score = {' + '.join(f'{p.name} x {p.effective:.4g}' for p in composite.parts)}, of those that apply")
    typer.echo(f"{'row':20} {'score':>6} {' '.join(part.name for part in composite.parts)} why")


def _print_line(composite: Composite, record: Mapping[str, Any]) -> None:
    values = " ".join(f"{_number(record[part.name]):>{len(part.name)}}" for part in composite.parts)
    why = record["details"].get("llm_accuracy", {}).get("why", "")
    typer.echo(_printable(f"{record['sample_id'][:20]:20} {record['score']:6.4f} {values} {why}"))


def _print_one(composite: Composite, record: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("component", "weight", "value", "why")
    for part in composite.parts:
        details = {key: value for key, value in record["details"].get(part.name, {}).items() if value != []}
        why = ", ".join(str(value) if key == "why" else f"{key}: {value}" for key, value in details.items())
        table.add_row(part.name, f"{part.effective:.4g}", _number(record[part.name]), _printable(why))
    table.add_section()
    table.add_row("score", "", f"{record['score']:.4f}", "")
    Console().print(table, markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _printable(text: str) -> str:
    """Return `text` with half a surrogate pair, which is no character, as the escape that JSON has for it."""
    return text.encode("utf-8", "backslashreplace").decode()
