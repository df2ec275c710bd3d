"""From scored items to figures: a task, its kinds of question, its modalities, and the average over tasks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.scored import ScoredItem
from evaluation.statistics.agreement import krippendorff_alpha
from evaluation.statistics.bootstrap import bootstrap_average
from evaluation.statistics.intervals import Estimate, clustered_mean, within


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
        n, missing = len(self.scores) + self.unscored.total(), self.unscored.total()
        right = sum(self.scores)
        return {
            "items": n,
            "scored": len(self.scores),
            "unscored": dict(self.unscored),
            "estimate": estimate_json(within(clustered_mean(self.scores, self.clusters))),
            # What the mean would be if every unscored item were wrong, and if every one were right.
            "bounds": [right / n, (right + missing) / n] if n else None,
        }


@dataclass
class TaskTally:
    """All that is counted of one task."""

    all: Tally = field(default_factory=Tally)
    kinds: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    modalities: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    how: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    dimensions: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    truncated: int = 0

    def add(self, item: ScoredItem) -> None:
        self.all.add(item)
        self.kinds[item.row["kind"]].add(item)
        if item.row["modality"]:
            self.modalities[item.row["modality"]].add(item)
        self.how[item.how] += 1
        self.problems.update(item.decision.problems if item.decision else ())
        self.truncated += item.row["finish"] == "length"
        if item.row["kind"] == "choice" and item.decision is not None:
            self.letters["certain" if item.how in ("letter", "no_answer") else "unsure"] += 1
            self.letters["right"] += item.how == "letter" and item.score == 1.0
        for name, grade in item.findings[0].dimensions.items() if item.findings else ():
            if grade is not None:
                self.dimensions[name].append(grade)

    def as_json(self) -> dict[str, Any]:
        result = self.all.as_json() | {
            "kinds": {kind: tally.as_json() for kind, tally in sorted(self.kinds.items())},
            "modalities": {name: tally.as_json() for name, tally in sorted(self.modalities.items())},
            "decided_by": dict(self.how),
            "format_problems": dict(self.problems),
            "truncated": self.truncated,
            "dimensions": {name: sum(grades) / len(grades) for name, grades in self.dimensions.items()},
        }
        if self.letters:
            read = self.letters["certain"] + self.letters["unsure"]
            result["letters"] = dict(self.letters) | {"accuracy_by_letter_alone": self.letters["right"] / read}
        return result


def summarise(items: Iterable[ScoredItem], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of a run. A task without items is listed with none; it does not enter an average.

    Args:
        tasks: name -> what `run.json` says of it; gives each task's group.
    """
    tallies = {name: TaskTally() for name in tasks}
    agreement = Agreement()
    for item in items:
        tallies.setdefault(item.row["task"], TaskTally()).add(item)
        agreement.add(item)
    groups: dict[str, list[Tally]] = {"overall": []}
    for name, tally in tallies.items():
        group = tasks.get(name, {}).get("group", "other")
        groups.setdefault(group, []).append(tally.all)
        if group != "mmmu":  # beside the average of the others, as the paper has it
            groups["overall"].append(tally.all)
    return {
        "tasks": {name: tally.as_json() for name, tally in tallies.items()},
        "averages": {name: _average(tallies) for name, tallies in groups.items()},
        "agreement": agreement.as_json(),
        "unscored": sum(tally.all.unscored.total() for tally in tallies.values()),
        "items": sum(tally.all.unscored.total() + len(tally.all.scores) for tally in tallies.values()),
    }


def _average(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Unweighted mean over the tasks that have a score."""
    estimate = bootstrap_average([(tally.scores, tally.clusters) for tally in tallies])
    tasks = sum(bool(tally.scores) for tally in tallies)
    return estimate_json(estimate) | {"tasks": tasks, "empty_tasks": len(tallies) - tasks}


class Agreement:
    """Krippendorff's alpha between judges, where there are several, and the items on which they differ."""

    def __init__(self) -> None:
        self._ratings: dict[str, dict[str, list[float | None]]] = {}

    def add(self, item: ScoredItem) -> None:
        level = "interval" if item.row["kind"] == "report" else "nominal"
        by_judge = self._ratings.setdefault(level, {})
        for finding in item.findings:
            by_judge.setdefault(finding.judge, []).append(finding.score)

    def as_json(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for level, by_judge in self._ratings.items():
            if len(by_judge) < 2:
                continue
            ratings = list(by_judge.values())
            units = [[value for value in unit if value is not None] for unit in zip(*ratings, strict=True)]
            both = [unit for unit in units if len(unit) > 1]
            result["reports" if level == "interval" else "questions"] = {
                "judges": list(by_judge),
                "compared": len(both),
                "disagreements": sum(len(set(unit)) > 1 for unit in both),
                "krippendorff_alpha": krippendorff_alpha(ratings, "interval" if level == "interval" else "nominal"),
            }
        return result


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """An estimate with its numbers rounded to six places, as the result files hold it."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(estimate).items()}
