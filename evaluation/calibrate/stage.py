"""`medix eval calibrate`: have a judge read labelled pairs, resumably, and say how far it can be believed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.bounded import GiveUp, run_bounded
from evaluation.calibrate.measure import Judged, measure
from evaluation.calibrate.pairs import Pair
from evaluation.item import content_hash
from evaluation.judging.cases import judgement_key
from evaluation.judging.judge import Judgement, JudgeOptions, RubricJudge
from evaluation.judging.rubrics import Case, RubricName, rubric_version
from evaluation.progress import Progress
from evaluation.row_file import RowFile, RowWriter
from evaluation.run_folder import RunFolder
from evaluation.score import interval, percent
from medix.errors import EvaluationError


async def calibrate(
    folder: Path, options: JudgeOptions, rubric: RubricName, pairs: Sequence[Pair], max_unscored: float = 0.02
) -> dict[str, Any]:
    """Write `calibration.json` and `calibration.md` into `folder`; pairs that were read before are not read again.

    Raises:
        EvaluationError: the judge is gone, or gave no verdict on more than `max_unscored` of the pairs.
    """
    file = RowFile(folder / "pairs_judged.jsonl")
    await _judge_missing(file, options, rubric, pairs)
    scores = {row["key"]: row["score"] for row in file.latest()}
    judged = list(_verdicts(scores, options, rubric, pairs))
    result = {
        "judge": options.settings(),
        "rubric": rubric,
        "rubric_version": rubric_version(rubric),
        "pairs": content_hash([[p.question, p.reference, p.candidate, p.right] for p in pairs]),
        **measure(judged),
    }
    run = RunFolder(folder)
    run.write_text("calibration.json", json.dumps(result, indent=2) + "\n")
    run.write_text("calibration.md", describe(result))
    unscored = result["all"]["unscored"]
    if unscored > max_unscored * max(1, len(judged)):
        raise EvaluationError(
            f"verdicts on all but {max_unscored:.0%} of the pairs",
            f"{unscored} of {len(judged)} without one",
            "run the same command again, or use a judge that keeps to the form",
        )
    return result


async def _judge_missing(file: RowFile, options: JudgeOptions, rubric: RubricName, pairs: Sequence[Pair]) -> None:
    done = {row["key"] for row in file.latest() if row["score"] is not None}
    todo = {key: pair for pair in pairs if (key := _key(options, rubric, pair)) not in done}
    judge, give_up = RubricJudge(options), GiveUp(f"judge {options.model}", options.endpoint.max_in_flight)

    async def work(entry: tuple[str, Pair]) -> tuple[str, Judgement]:
        return entry[0], await judge.judge(rubric, _case(entry[1]))

    with RowWriter(file.path) as writer, Progress("calibrate") as progress:
        try:
            count = 0
            async for key, judgement in run_bounded(todo.items(), work, options.endpoint.max_in_flight):
                writer.append({"key": key, "score": judgement.score, "error": judgement.error})
                count += 1
                progress.advance(count)
                give_up.note(judgement.fatal, (judgement.error or {}).get("detail", ""))
        finally:
            await judge.aclose()


def _verdicts(
    scores: dict[str, float | None], options: JudgeOptions, rubric: RubricName, pairs: Sequence[Pair]
) -> Iterator[Judged]:
    for pair in pairs:
        score = scores.get(_key(options, rubric, pair))
        yield pair, None if score is None else score >= 0.5


def _case(pair: Pair) -> Case:
    return Case(pair.question or "(no question stated)", pair.reference, pair.candidate)


def _key(options: JudgeOptions, rubric: RubricName, pair: Pair) -> str:
    return judgement_key(options.settings(), rubric, _case(pair), [])


def describe(result: dict[str, Any]) -> str:
    """The calibration as a table."""
    lines = [
        f"# Judge {result['judge']['model']}, {result['rubric']}",
        "",
        "| kind | pairs | says YES when right | says NO when wrong | kappa |",
        "|---|---|---|---|---|",
    ]
    for kind, figures in {"all": result["all"], **result["kinds"]}.items():
        kappa = "-" if figures["kappa"] is None else f"{figures['kappa']:.3f}"
        cells = [_cell(figures["sensitivity"]), _cell(figures["specificity"]), kappa]
        lines.append(f"| {kind} | {figures['pairs']} | {' | '.join(cells)} |")
    if result["all"]["unscored"]:
        lines += ["", f"Without a verdict: {result['all']['unscored']}."]
    return "\n".join(lines) + "\n"


def _cell(estimate: dict[str, Any]) -> str:
    if estimate["mean"] is None:
        return "-"
    return f"{percent(estimate['mean'])} ({interval(estimate['low'], estimate['high'])})"
