"""Stage 3: figures from responses and judgements, as JSON, CSV and Markdown. No model and no judge is asked."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from evaluation.judging.stage import ScoredItem, scored_items
from evaluation.options import Scoring
from evaluation.report_metrics import report_metrics
from evaluation.run_folder import RunFolder, checked
from evaluation.statistics import (
    JudgeErrors,
    average_of_means,
    clustered_mean,
    corrected_mean,
    interval,
    krippendorff_alpha,
    percent,
)
from medix.errors import EvaluationError
from medix.files import read_mapping, write_atomically

GRADED = ("report", "points")
"""Kinds of items that have a grade, not a right answer."""


class Outcome(NamedTuple):
    """What of an item the figures need."""

    score: float | None
    reason: str
    cluster: str
    kind: str
    modality: str | None


@dataclass
class Tally:
    """All that is counted of one task, kept as plain numbers."""

    outcomes: list[Outcome] = field(default_factory=list)
    how: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    dimensions: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, item: ScoredItem) -> None:
        row = item.row
        self.outcomes.append(Outcome(item.score, item.reason, row.cluster, row.kind, row.modality))
        self.how[item.how] += 1
        self.problems.update(item.decision.problems if item.decision else ())
        self.problems["cut_off"] += row.finish == "length"
        if row.kind == "choice" and item.decision is not None:
            self.letters["certain" if item.how in ("letter", "no_answer") else "unsure"] += 1
            self.letters["right"] += item.how == "letter" and item.score == 1.0
        first = next(iter(item.findings.values()), None)
        for name, grade in first.votes[0].dimensions.items() if first and first.votes else ():
            if grade is not None:
                self.dimensions[name].append(grade)

    def scored(self) -> tuple[list[float], list[str]]:
        """Return the scores and their clusters."""
        found = [(one.score, one.cluster) for one in self.outcomes if one.score is not None]
        return [score for score, _ in found], [cluster for _, cluster in found]

    def parts(self, name: str) -> dict[str, Any]:
        """Return the figures of the items of each `kind` or `modality`."""
        values = sorted({getattr(one, name) for one in self.outcomes} - {None, ""})
        parts = {value: [one for one in self.outcomes if getattr(one, name) == value] for value in values}
        return {value: Tally(outcomes).figures() for value, outcomes in parts.items()}

    def figures(self) -> dict[str, Any]:
        scores, clusters = self.scored()
        n = len(self.outcomes)
        missing = n - len(scores)
        right = sum(scores)
        return {
            "items": n,
            "scored": len(scores),
            "unscored": dict(Counter(one.reason for one in self.outcomes if one.score is None)),
            "estimate": clustered_mean(scores, clusters).within().as_json(),
            # What the mean would be if every unscored item were wrong, and if every one were right.
            "bounds": [right / n, (right + missing) / n] if n else None,
        }

    def as_json(self) -> dict[str, Any]:
        read = self.letters["certain"] + self.letters["unsure"]
        by_letter = {"accuracy_by_letter_alone": self.letters["right"] / read} if read else {}
        return self.figures() | {
            "kinds": self.parts("kind"),
            "modalities": self.parts("modality"),
            "decided_by": dict(self.how),
            "problems": {name: count for name, count in self.problems.items() if count},
            "dimensions": {name: sum(grades) / len(grades) for name, grades in self.dimensions.items()},
            **({"letters": dict(self.letters) | by_letter} if read else {}),
        }


def summarise(items: Iterable[ScoredItem], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a run: by task with its kinds and modalities, and the averages over tasks.

    Args:
        tasks: name -> what `run.json` says of it: its group, and how many of its rows were refused.
    """
    tallies = {name: Tally() for name in tasks}
    ratings: dict[str, dict[str, list[float | None]]] = {"questions": {}, "reports": {}}
    for item in items:
        tallies[item.row.task].add(item)
        for judge, finding in item.findings.items():
            level = "reports" if item.row.kind in GRADED else "questions"
            ratings[level].setdefault(judge, []).append(finding.score)
    counted = {
        name: tally.as_json() | {"refused": dict(tasks[name].get("refused", {}))} for name, tally in tallies.items()
    }
    return {
        "tasks": counted,
        "averages": _averages(tallies, tasks),
        "agreement": {level: _agreement(level, by) for level, by in ratings.items() if len(by) > 1},
        "items": sum(task["items"] for task in counted.values()),
        **{name: sum(sum(task[name].values()) for task in counted.values()) for name in ("unscored", "refused")},
    }


def _averages(tallies: Mapping[str, Tally], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the unweighted means over the tasks of each group; one task's figure is given once, as its own.

    `paper` is the average of the paper's 17 tasks, or of those among them that were run.
    """
    scored = {name: found for name, tally in tallies.items() if (found := tally.scored())[0]}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in scored:
        for group in (tasks[name]["group"], *(["paper"] if "released_name" in tasks[name] else []), "all"):
            groups[group].append(name)
    averages: dict[str, Any] = {}
    for group, names in groups.items():
        if len(names) > 1 and names not in [averages[other]["of"] for other in averages]:
            estimate = average_of_means([scored[name] for name in names])
            averages[group] = estimate.within().as_json() | {"tasks": len(names), "of": names}
    return averages


def _agreement(level: str, by_judge: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Return Krippendorff's alpha between judges, and on how many items they differ."""
    ratings = list(by_judge.values())
    units = [[value for value in unit if value is not None] for unit in zip(*ratings, strict=True)]
    return {
        "judges": list(by_judge),
        "compared": sum(len(unit) > 1 for unit in units),
        "disagreements": sum(len(set(unit)) > 1 for unit in units),
        "krippendorff_alpha": krippendorff_alpha(ratings, "interval" if level == "reports" else "nominal"),
    }


def score(folder: RunFolder, scoring: Scoring | None = None) -> dict[str, Any]:
    """Write `scores.json`, `scores.csv` and `scores.md`; return what is in the first.

    Raises:
        EvaluationError: more is unscored or refused than the budget allows (the files are written all the same, and
            say so), or an item that was asked is missing.
    """
    scoring = scoring or Scoring()
    prices = scoring.read_prices()
    metrics = scoring.metrics()
    started, settings = time.time(), folder.settings()
    result = {"settings": settings, **summarise(scored_items(folder), settings["generate"]["tasks"])}
    result["faults"] = faults = _faults(result, scoring)
    result["notes"] = [note for rows in (folder.generations, folder.judgements) if (note := rows.note)]
    result["ledger"] = folder.ledger(prices)
    if scoring.calibration is not None:
        calibration = read_calibration(scoring.calibration, settings)
        result["corrected"] = corrected_scores(scored_items(folder), calibration["all"])
    if metrics:
        result["report_metrics"] = report_metrics(scored_items(folder), metrics)
    folder.write_json("scores.json", result)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines(result))
    write_atomically(folder.path / "scores.csv", table.getvalue())
    write_atomically(folder.path / "scores.md", markdown(result))
    folder.log_stage("score", started, {"items": result["items"]})
    if faults:
        raise EvaluationError(
            f"These figures are no result: {' '.join(faults)}",
            "Run the same command again (`--judge-failed-only` for judges), mend the rows that refused.jsonl names, or"
            " raise --max-unscored or --max-refused.",
        )
    return result


def _faults(result: Mapping[str, Any], budget: Scoring) -> list[str]:
    """Return why the figures are no result, as sentences; empty if they are one."""
    complete = result["settings"]["generate"]["complete"]
    faults = [] if complete else ["Not every question was asked: the generate stage did not come to its end."]
    if result["unscored"] > budget.max_unscored * max(1, result["items"]):
        reasons = sum((Counter(task["unscored"]) for task in result["tasks"].values()), Counter())
        faults.append(f"{result['unscored']} of {result['items']} items are unscored ({_listed(reasons)}).")
    for name, task in result["tasks"].items():
        refused = sum(task["refused"].values())
        rows = refused + task["items"]
        if refused > budget.max_refused * rows:
            faults.append(f"{refused} of {rows} rows of {name} are refused ({_listed(task['refused'])}).")
    return faults


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in counts.items())


class Calibration(TypedDict):
    """What of a `calibration.json` is read back."""

    judge: dict[str, Any]
    rubric: str
    all: dict[str, Any]


def read_calibration(path: Path, settings: Mapping[str, Any]) -> Calibration:
    """Return the `calibration.json` of the judge that scored the run.

    Raises:
        EvaluationError: the file is missing, or it is of another judge, of other settings, or of another rubric.
    """
    fix = "Run `medix eval calibrate` with the judge and the --rubric of the run."
    if not path.is_file():
        raise EvaluationError(f"There is no calibration at {path}.", fix)
    calibration: Calibration = checked(Calibration, read_mapping(path), path)
    judging = settings.get("judge", {"judges": [], "rubrics": {}})
    judge = {**judging["judges"][0], "sees_images": False} if judging["judges"] else None
    rubrics = set(judging["rubrics"].values()) - set(GRADED)
    if judge != calibration["judge"] or not rubrics <= {calibration["rubric"]}:
        raise EvaluationError(
            f"{path} is the calibration of {calibration['judge']} with the rubric {calibration['rubric']}, but the run"
            f" was judged by {judge} with {', '.join(sorted(rubrics)) or 'none'}.",
            fix,
        )
    return calibration


def corrected_scores(items: Iterable[ScoredItem], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return by task what the share of right answers would be if the judge did not err.

    Only what the judge decided is corrected; what the rules decided is taken as it is. Reports have grades and are
    left out.
    """
    by_task: dict[str, list[tuple[float, bool, str]]] = defaultdict(list)
    for item in items:
        if item.score is not None and item.row.kind not in GRADED:
            by_task[item.row.task].append((item.score, item.how == "judge", item.row.cluster))
    errors = JudgeErrors(*(figures[name] for name in ("true_yes", "positives", "true_no", "negatives")))
    result = {}
    for task, members in by_task.items():
        scores, judged, clusters = zip(*members, strict=True)
        result[task] = corrected_mean(scores, judged, clusters, errors).as_json() | {"judged": sum(judged)}
    return result


COLUMNS = ("task", "part", "items", "unscored", "refused", "clusters", "mean", "low", "high", "method")


def lines(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the table: every task and its kinds, then the averages."""
    for name, task in result["tasks"].items():
        for part, tally in {"all": task, **(task["kinds"] if len(task["kinds"]) > 1 else {})}.items():
            counts = {"items": tally["items"], "unscored": tally["items"] - tally["scored"]}
            refused = sum(task["refused"].values()) if part == "all" else ""
            yield {"task": name, "part": part, **counts, "refused": refused, **tally["estimate"]}
    for name, e in result["averages"].items():
        head = {"task": f"average: {name}", "part": f"{e['tasks']} tasks", "items": e["n"]}
        yield {**head, "unscored": "", "refused": "", **e}


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table that a person reads first."""
    generate = result["settings"]["generate"]
    judges = ", ".join(judge["model"] for judge in result["settings"].get("judge", {}).get("judges", [])) or "none"
    counts = f"Unscored: {result['unscored']} of {result['items']}. Refused rows: {result['refused']}."
    text = [f"# {generate['model']['model']}", "", f"Prompt: {generate['prompt']}. Judge: {judges}. {counts}"]
    text += [f"**These figures are no result.** {fault}" for fault in result["faults"]] + result["notes"]
    text += ["", "| task | part | items | unscored | refused | score | 95 % interval | how |", f"|{'---|' * 8}"]
    for line in lines(result):
        cells = [line[name] for name in COLUMNS[:5]]
        cells += [percent(line["mean"]), interval(line["low"], line["high"]), line["method"]]
        text.append(f"| {' | '.join(map(str, cells))} |")
    more = {
        f"{name}, corrected for the judge's errors on {e['judged']} items": e
        for name, e in result.get("corrected", {}).items()
    }
    for name, metrics in result.get("report_metrics", {}).items():
        more |= {f"{name}, {metric}": e for metric, e in metrics.items()}
    for name, e in more.items():
        text += ["", f"{name}: {percent(e['mean'])}, {interval(e['low'], e['high'])}"]
    return "\n".join(text) + "\n"
