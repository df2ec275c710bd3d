"""`medix eval calibrate`: have a judge read labelled pairs, resumably, and say how far it can be believed."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evaluation.item import content_hash
from evaluation.judging import rubrics
from evaluation.judging.judge import JudgeOptions
from evaluation.judging.rubrics import Case, RubricName
from evaluation.judging.stage import Job, JudgeCounts, judge_all
from evaluation.run_folder import Judgement, Rows, RunFolder
from evaluation.statistics import clustered_mean, cohen_kappa, with_interval
from medix.errors import DataError, EvaluationError
from medix.files import write_atomically
from medix.jsonl import JsonLines

OURS: Final = Path(__file__).resolve().parent / "pairs.jsonl"
"""Written by hand for this project; small, and meant for the kinds of error that matter most."""
_LABELS = dict.fromkeys(("1", "true", "yes", "right", "correct"), True)
_LABELS |= dict.fromkeys(("0", "false", "no", "wrong", "incorrect"), False)


@dataclass(frozen=True)
class Pair:
    """A reference, a candidate, and whether the candidate says the same."""

    question: str
    reference: str
    candidate: str
    right: bool
    kind: str
    """Of difference, e.g. negation or synonym."""
    group: str
    """Names pairs that are not independent."""

    @property
    def case(self) -> Case:
        return Case(self.question or "(no question stated)", self.reference, self.candidate)


Judged = tuple[Pair, bool | None]
"""A pair and the judge's verdict; None where it gave none."""


def read_pairs(path: Path = OURS) -> Iterator[Pair]:
    """Read a JSON-lines or CSV file: `question` (may be empty), `reference`, `candidate`, `right`; optional `kind`
    and `group`. A user's human ratings have this form.

    Raises:
        DataError: a line can not be read or lacks a field, or `right` is neither yes nor no.
    """
    if not path.is_file():
        raise DataError(f"There is no file of labelled pairs at {path}.", "docs/evaluation.md names its columns.")
    if path.suffix != ".csv":
        lines = JsonLines(path)
        for number, row in lines:
            yield _pair(row, path, number)
        if lines.note():
            raise DataError(f"{path} is damaged: {lines.note()}.", "Correct the file.")
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, strict=True), 1):
                yield _pair(row, path, number)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can not be read as CSV: {error}.", "Correct the file.") from error


def _pair(row: Mapping[str, Any], path: Path, number: int) -> Pair:
    text = {name: "" if value is None else str(value).strip() for name, value in row.items() if name is not None}
    right = _LABELS.get(text.get("right", "").lower())
    if right is None or not text.get("reference") or not text.get("candidate"):
        raise DataError(
            f"{path.name}, pair {number} is no labelled pair: {dict(row)!r}"[:300],
            "Give it a reference, a candidate, and `right` as yes or no.",
        )
    kind = text.get("kind") or "unnamed"
    group = text.get("group") or str(number)
    return Pair(text.get("question", ""), text["reference"], text["candidate"], right, kind, group)


async def calibrate(
    folder: Path, options: JudgeOptions, rubric: RubricName, pairs: Sequence[Pair], max_unscored: float = 0.02
) -> dict[str, Any]:
    """Write `calibration.json` and `calibration.md` into `folder`; pairs that were read before are not read again.

    Raises:
        EvaluationError: the judge is gone, or gave no verdict on more than `max_unscored` of the pairs.
    """
    options.refuse([rubric])
    rows = Rows(folder / "pairs_judged.jsonl", Judgement)
    jobs = {key: Job(key, rubric, pair.case) for pair in pairs for key in [options.key(rubric, pair.case)]}
    done = {key for key, found in rows.latest() if found.score is not None}
    with rows.writer() as writer:
        todo = (job for key, job in jobs.items() if key not in done)
        await judge_all(options, todo, writer, JudgeCounts(), folder)
    scores = {key: found.score for key, found in rows.latest()}
    read = (scores.get(options.key(rubric, pair.case)) for pair in pairs)
    judged = [(pair, None if score is None else score >= 0.5) for pair, score in zip(pairs, read, strict=True)]
    result = {
        "judge": options.settings(),
        "rubric": rubric,
        "rubric_version": rubrics.version(rubric),
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


def measure(judged: Iterable[Judged]) -> dict[str, Any]:
    """Return sensitivity, specificity and kappa over all pairs and for each kind.

    Pairs without a verdict are counted and left out.
    """
    everything = list(judged)
    by_kind = defaultdict[str, list[Judged]](list)
    for pair, verdict in everything:
        by_kind[pair.kind].append((pair, verdict))
    return {"all": _figures(everything), "kinds": {kind: _figures(by_kind[kind]) for kind in sorted(by_kind)}}


def _figures(entries: list[Judged]) -> dict[str, Any]:
    scored = [(pair, verdict) for pair, verdict in entries if verdict is not None]
    agreed = [(pair, float(verdict == pair.right)) for pair, verdict in scored]
    right = [(pair, value) for pair, value in agreed if pair.right]
    wrong = [(pair, value) for pair, value in agreed if not pair.right]
    return {
        "pairs": len(entries),
        "unscored": len(entries) - len(scored),
        "positives": len(right),
        "true_yes": int(sum(value for _, value in right)),
        "negatives": len(wrong),
        "true_no": int(sum(value for _, value in wrong)),
        "sensitivity": _share(right),
        "specificity": _share(wrong),
        "agreement": _share(agreed),
        "kappa": cohen_kappa([pair.right for pair, _ in scored], [bool(verdict) for _, verdict in scored]),
    }


def _share(entries: Sequence[tuple[Pair, float]]) -> dict[str, Any]:
    estimate = clustered_mean([value for _, value in entries], [pair.group for pair, _ in entries])
    return estimate.within().as_json()


def describe(result: Mapping[str, Any]) -> str:
    """Return the calibration as a table."""
    text = [f"# Judge {result['judge']['model']}, {result['rubric']}", ""]
    text += ["| kind | pairs | says YES when right | says NO when wrong | kappa |", "|---|---|---|---|---|"]
    for kind, figures in {"all": result["all"], **result["kinds"]}.items():
        kappa = "-" if figures["kappa"] is None else f"{figures['kappa']:.3f}"
        cells = f"{with_interval(figures['sensitivity'])} | {with_interval(figures['specificity'])}"
        text.append(f"| {kind} | {figures['pairs']} | {cells} | {kappa} |")
    if result["all"]["unscored"]:
        text += ["", f"Without a verdict: {result['all']['unscored']}."]
    return "\n".join(text) + "\n"
