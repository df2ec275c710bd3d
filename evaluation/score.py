"""Stage 3: figures from responses and judgements, as JSON, CSV and Markdown. No model and no judge is asked."""

from __future__ import annotations

import csv
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from evaluation.report_metrics import report_metrics
from evaluation.run_folder import RunFolder, checked, ledger
from evaluation.scored import ScoredItem, scored_items
from evaluation.statistics import JudgeErrors, average_of_means, clustered_mean, corrected_mean, krippendorff_alpha
from medix.errors import EvaluationError
from medix.files import read_mapping, write_atomically


@dataclass(frozen=True)
class Budget:
    """How much of what was asked may be missing before the figures are no result."""

    unscored: float = 0.02
    """Share of the items that may stay without a score."""
    refused: float = 0.02
    """Share of a task's rows that may be refused as no question."""


@dataclass
class Tally:
    """Scores of a set of items, kept as plain numbers."""

    scores: list[float] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    unscored: Counter[str] = field(default_factory=Counter)

    def add(self, item: ScoredItem) -> None:
        if item.score is None:
            self.unscored[item.reason] += 1
        else:
            self.scores.append(item.score)
            self.clusters.append(item.row["cluster"])

    def as_json(self) -> dict[str, Any]:
        n, missing, right = len(self.scores) + self.unscored.total(), self.unscored.total(), sum(self.scores)
        return {
            "items": n,
            "scored": len(self.scores),
            "unscored": dict(self.unscored),
            "estimate": clustered_mean(self.scores, self.clusters).within().as_json(),
            # What the mean would be if every unscored item were wrong, and if every one were right.
            "bounds": [right / n, (right + missing) / n] if n else None,
        }


@dataclass
class TaskTally(Tally):
    """All that is counted of one task."""

    kinds: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    modalities: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    how: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    dimensions: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, item: ScoredItem) -> None:
        super().add(item)
        self.kinds[item.row["kind"]].add(item)
        if item.row["modality"]:
            self.modalities[item.row["modality"]].add(item)
        self.how[item.how] += 1
        self.problems.update(item.decision.problems if item.decision else ())
        self.problems["cut_off"] += item.row["finish"] == "length"
        if item.row["kind"] == "choice" and item.decision is not None:
            self.letters["certain" if item.how in ("letter", "no_answer") else "unsure"] += 1
            self.letters["right"] += item.how == "letter" and item.score == 1.0
        for name, grade in item.findings[0].dimensions.items() if item.findings else ():
            if grade is not None:
                self.dimensions[name].append(grade)

    def as_json(self) -> dict[str, Any]:
        read = self.letters["certain"] + self.letters["unsure"]
        by_letter = {"accuracy_by_letter_alone": self.letters["right"] / read} if read else {}
        return super().as_json() | {
            "kinds": {kind: tally.as_json() for kind, tally in sorted(self.kinds.items())},
            "modalities": {name: tally.as_json() for name, tally in sorted(self.modalities.items())},
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
    tallies = {name: TaskTally() for name in tasks}
    ratings: dict[str, dict[str, list[float | None]]] = {"questions": {}, "reports": {}}
    for item in items:
        tallies[item.row["task"]].add(item)
        for finding in item.findings:
            level = "reports" if item.row["kind"] in ("report", "points") else "questions"
            ratings[level].setdefault(finding.judge, []).append(finding.score)
    counted = {
        name: tally.as_json() | {"refused": dict(tasks[name].get("refused", {}))} for name, tally in tallies.items()
    }
    return {
        "tasks": counted,
        "averages": _averages(tallies, tasks),
        "agreement": {level: _agreement(level, by) for level, by in ratings.items() if len(by) > 1},
        "items": sum(task["items"] for task in counted.values()),
        "unscored": sum(sum(task["unscored"].values()) for task in counted.values()),
        "refused": sum(sum(task["refused"].values()) for task in counted.values()),
    }


def _averages(tallies: Mapping[str, Tally], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the unweighted means over the tasks of each group; one task's figure is given once, as its own.

    `paper` is the average of the paper's 17 tasks, or of those among them that were run.
    """
    groups: dict[str, list[str]] = {}
    for name, tally in tallies.items():
        if tally.scores:
            groups.setdefault(tasks[name]["group"], []).append(name)
            if "released_name" in tasks[name]:
                groups.setdefault("paper", []).append(name)
            groups.setdefault("all", []).append(name)
    averages: dict[str, Any] = {}
    for group, names in groups.items():
        if len(names) > 1 and names not in [averages[other]["of"] for other in averages]:
            estimate = average_of_means([(tallies[name].scores, tallies[name].clusters) for name in names])
            averages[group] = estimate.within().as_json() | {"tasks": len(names), "of": names}
    return averages


def _agreement(level: str, by_judge: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Return Krippendorff's alpha between judges, and on how many items they differ."""
    ratings = list(by_judge.values())
    units = [[value for value in unit if value is not None] for unit in zip(*ratings, strict=True)]
    both = [unit for unit in units if len(unit) > 1]
    return {
        "judges": list(by_judge),
        "compared": len(both),
        "disagreements": sum(len(set(unit)) > 1 for unit in both),
        "krippendorff_alpha": krippendorff_alpha(ratings, "interval" if level == "reports" else "nominal"),
    }


def score(
    folder: RunFolder,
    prices: Sequence[float] = (),
    budget: Budget = Budget(),
    calibration: Path | None = None,
    metrics: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `scores.json`, `scores.csv` and `scores.md`; return what is in the first.

    Args:
        calibration: `calibration.json` of the judge, for scores corrected for its errors.
        metrics: of reports, beside the judge: see `evaluation.report_metrics`.

    Raises:
        EvaluationError: more is unscored or refused than the budget allows (the files are written all the same, and
            say so), or an item that was asked is missing.
    """
    started, settings = time.time(), folder.settings()
    summary = summarise(scored_items(folder), settings["generate"]["tasks"])
    faults = _faults(summary, settings["generate"]["complete"], budget)
    notes = [note for rows in (folder.generations, folder.judgements) if (note := rows.note)]
    result = {"settings": settings, **summary, "faults": faults, "notes": notes, "ledger": ledger(folder, prices)}
    if calibration is not None:
        result["corrected"] = corrected_scores(scored_items(folder), read_calibration(calibration, settings))
    if metrics:
        result["report_metrics"] = report_metrics(scored_items(folder), metrics)
    folder.write_json("scores.json", result)
    write_atomically(folder.path / "scores.csv", partial(_write_csv, result))
    write_atomically(folder.path / "scores.md", markdown(result))
    folder.log_stage("score", started, {"items": summary["items"]})
    if faults:
        raise EvaluationError(
            f"These figures are no result: {' '.join(faults)}",
            "Run the same command again (`--judge-failed-only` for judges), mend the rows that refused.jsonl names, or"
            " raise --max-unscored or --max-refused.",
        )
    return result


def _faults(summary: Mapping[str, Any], complete: bool, budget: Budget) -> list[str]:
    """Return why the figures are no result, as sentences; empty if they are one."""
    faults = [] if complete else ["Not every question was asked: the generate stage did not come to its end."]
    if summary["unscored"] > budget.unscored * max(1, summary["items"]):
        reasons = sum((Counter(task["unscored"]) for task in summary["tasks"].values()), Counter())
        faults.append(f"{summary['unscored']} of {summary['items']} items are unscored ({_listed(reasons)}).")
    for name, task in summary["tasks"].items():
        refused = sum(task["refused"].values())
        if refused > budget.refused * (refused + task["items"]):
            faults.append(
                f"{refused} of {refused + task['items']} rows of {name} are refused ({_listed(task['refused'])})."
            )
    return faults


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in counts.items())


class CalibrationFile(TypedDict):
    """What of a `calibration.json` is read back."""

    judge: dict[str, Any]
    rubric: str
    all: dict[str, Any]


def read_calibration(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `calibration.json` of the judge that scored the run.

    Raises:
        EvaluationError: the file is missing, or it is of another judge, of other settings, or of another rubric.
    """
    fix = "Run `medix eval calibrate` with the judge and the --rubric of the run."
    if not path.is_file():
        raise EvaluationError(f"There is no calibration at {path}.", fix)
    calibration: dict[str, Any] = checked(CalibrationFile, read_mapping(path), path)
    judging = settings.get("judge", {"judges": [], "rubrics": {}})
    judge = {**judging["judges"][0], "sees_images": False} if judging["judges"] else None
    rubrics = set(judging["rubrics"].values()) - {"report", "points"}
    if judge != calibration["judge"] or not rubrics <= {calibration["rubric"]}:
        raise EvaluationError(
            f"{path} is the calibration of {calibration['judge']} with the rubric {calibration['rubric']}, but the run"
            f" was judged by {judge} with {', '.join(sorted(rubrics)) or 'none'}.",
            fix,
        )
    return calibration


def corrected_scores(items: Iterable[ScoredItem], calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Return by task what the share of right answers would be if the judge did not err.

    Only what the judge decided is corrected; what the rules decided is taken as it is. Reports have grades and are
    left out.
    """
    by_task: dict[str, list[ScoredItem]] = defaultdict(list)
    for item in items:
        if item.score is not None and item.row["kind"] not in ("report", "points"):
            by_task[item.row["task"]].append(item)
    figures = calibration["all"]
    errors = JudgeErrors(figures["true_yes"], figures["positives"], figures["true_no"], figures["negatives"])
    result = {}
    for task, members in by_task.items():
        judged = [item.how == "judge" for item in members]
        scores, clusters = [item.score or 0.0 for item in members], [item.row["cluster"] for item in members]
        corrected = corrected_mean(scores, judged, clusters, errors)
        result[task] = {"items": len(members), "judged": sum(judged), **asdict(corrected)}
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
        yield {
            "task": f"average: {name}",
            "part": f"{e['tasks']} tasks",
            "items": e["n"],
            "unscored": "",
            "refused": "",
            **e,
        }


def _write_csv(result: Mapping[str, Any], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines(result))


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table that a person reads first."""
    generate = result["settings"]["generate"]
    judges = ", ".join(judge["model"] for judge in result["settings"].get("judge", {}).get("judges", [])) or "none"
    counts = f"Unscored: {result['unscored']} of {result['items']}. Refused rows: {result['refused']}."
    text = [f"# {generate['model']['model']}", "", f"Prompt: {generate['prompt']}. Judge: {judges}. {counts}"]
    text += [f"**These figures are no result.** {fault}" for fault in result["faults"]] + result["notes"]
    text += [
        "",
        "| task | part | items | unscored | refused | score | 95 % interval | how |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines(result):
        figures = f"{percent(line['mean'])} | {interval(line['low'], line['high'])} | {line['method']}"
        cells = (line[name] for name in ("task", "part", "items", "unscored", "refused"))
        text.append(f"| {' | '.join(map(str, cells))} | {figures} |")
    for name, corrected in result.get("corrected", {}).items():
        value = f"{percent(corrected['value'])}, {interval(corrected['low'], corrected['high'])}"
        text += ["", f"{name}, corrected for the judge's errors on {corrected['judged']} items: {value}"]
    for name, metrics in result.get("report_metrics", {}).items():
        for metric, e in metrics.items():
            text += ["", f"{name}, {metric}: {percent(e['mean'])}, {interval(e['low'], e['high'])}"]
    return "\n".join(text) + "\n"


def percent(value: float | None) -> str:
    """Return `12.3 %`, or a dash if there is no figure."""
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Return `10.0 to 14.6 %`, or a dash."""
    return "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"
