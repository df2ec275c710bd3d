"""`medix eval calibrate`: have a judge read labelled pairs, resumably, and say how far it can be believed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.calibrate.pairs import Pair
from evaluation.concurrency import Watch, run_bounded
from evaluation.item import content_hash
from evaluation.judging.judge import Judge, Judgement, JudgeOptions
from evaluation.judging.rubrics import Case, RubricName, rubric_version
from evaluation.run_folder import PairRow, Rows, RunFolder
from evaluation.score import interval, percent
from evaluation.statistics import clustered_mean, cohen_kappa
from medix.errors import EvaluationError
from medix.files import write_atomically

Judged = tuple[Pair, bool | None]
"""A pair and the judge's verdict; None where it gave none."""


async def calibrate(
    folder: Path, options: JudgeOptions, rubric: RubricName, pairs: Sequence[Pair], max_unscored: float = 0.02
) -> dict[str, Any]:
    """Write `calibration.json` and `calibration.md` into `folder`; pairs that were read before are not read again.

    Raises:
        EvaluationError: the judge is gone, or gave no verdict on more than `max_unscored` of the pairs.
    """
    options.refuse([rubric])
    rows = Rows(folder / "pairs_judged.jsonl", PairRow)
    keys = {options.key(rubric, _case(pair)): pair for pair in pairs}
    await _judge_missing(rows, options, rubric, keys)
    scores = {row["key"]: row["score"] for row in rows.latest()}
    judged: list[Judged] = [
        (pair, None if (score := scores.get(options.key(rubric, _case(pair)))) is None else score >= 0.5)
        for pair in pairs
    ]
    result = {
        "judge": options.settings(),
        "rubric": rubric,
        "rubric_version": rubric_version(rubric),
        "pairs": content_hash([[p.question, p.reference, p.candidate, p.right] for p in pairs]),
        **measure(judged),
    }
    RunFolder(folder).write_json("calibration.json", result)
    write_atomically(folder / "calibration.md", describe(result))
    unscored = result["all"]["unscored"]
    if unscored > max_unscored * max(1, len(judged)):
        raise EvaluationError(
            f"The judge gave no verdict on {unscored} of {len(judged)} pairs.",
            "Run the same command again, or use a judge that keeps to the form.",
        )
    return result


async def _judge_missing(rows: Rows, options: JudgeOptions, rubric: RubricName, pairs: dict[str, Pair]) -> None:
    done = {row["key"] for row in rows.latest() if row["score"] is not None}
    todo = [(key, pair) for key, pair in pairs.items() if key not in done]
    judge, width = Judge(options), options.endpoint.max_in_flight

    async def work(entry: tuple[str, Pair]) -> tuple[str, Judgement]:
        return entry[0], await judge.judge(rubric, _case(entry[1]))

    with rows.writer() as writer, Watch("calibrate", f"judge {options.model}", width) as watch:
        try:
            async for key, judgement in run_bounded(todo, work, width):
                writer.append({"key": key, "score": judgement.score, "error": judgement.error})
                watch.note(judgement.fatal, (judgement.error or {}).get("detail", ""))
        finally:
            await judge.aclose()


def _case(pair: Pair) -> Case:
    return Case(pair.question or "(no question stated)", pair.reference, pair.candidate)


def measure(judged: Iterable[Judged]) -> dict[str, Any]:
    """Return sensitivity, specificity and kappa over all pairs and for each kind.

    Pairs without a verdict are counted and left out.
    """
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    for pair, verdict in judged:
        by_kind[pair.kind].append((pair, verdict))
    everything = [entry for entries in by_kind.values() for entry in entries]
    return {
        "all": _figures(everything),
        "kinds": {kind: _figures(entries) for kind, entries in sorted(by_kind.items())},
    }


def _figures(entries: list[Judged]) -> dict[str, Any]:
    scored = [(pair, verdict) for pair, verdict in entries if verdict is not None]
    right = [(float(verdict), pair.group) for pair, verdict in scored if pair.right]
    wrong = [(float(not verdict), pair.group) for pair, verdict in scored if not pair.right]
    return {
        "pairs": len(entries),
        "unscored": len(entries) - len(scored),
        "positives": len(right),
        "true_yes": int(sum(value for value, _ in right)),
        "negatives": len(wrong),
        "true_no": int(sum(value for value, _ in wrong)),
        "sensitivity": _share(right),
        "specificity": _share(wrong),
        "agreement": _share([(float(verdict == pair.right), pair.group) for pair, verdict in scored]),
        "kappa": cohen_kappa([pair.right for pair, _ in scored], [bool(verdict) for _, verdict in scored]),
    }


def _share(entries: list[tuple[float, str]]) -> dict[str, Any]:
    estimate = clustered_mean([value for value, _ in entries], [group for _, group in entries])
    return estimate.within().as_json()


def describe(result: dict[str, Any]) -> str:
    """Return the calibration as a table."""
    text = [f"# Judge {result['judge']['model']}, {result['rubric']}", ""]
    text += ["| kind | pairs | says YES when right | says NO when wrong | kappa |", "|---|---|---|---|---|"]
    for kind, figures in {"all": result["all"], **result["kinds"]}.items():
        kappa = "-" if figures["kappa"] is None else f"{figures['kappa']:.3f}"
        cells = " | ".join(
            "-" if e["mean"] is None else f"{percent(e['mean'])} ({interval(e['low'], e['high'])})"
            for e in (figures["sensitivity"], figures["specificity"])
        )
        text.append(f"| {kind} | {figures['pairs']} | {cells} | {kappa} |")
    if result["all"]["unscored"]:
        text += ["", f"Without a verdict: {result['all']['unscored']}."]
    return "\n".join(text) + "\n"
