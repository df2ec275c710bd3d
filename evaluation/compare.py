"""Two runs on the same items: paired differences by task, and of the average over tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evaluation.run_folder import RunFolder
from evaluation.score import percent
from evaluation.scored import scored_items
from evaluation.statistics.bootstrap import bootstrap_average
from evaluation.statistics.paired import compare_paired
from evaluation.summary import estimate_json
from medix.errors import EvaluationError

Scores = dict[tuple[str, str], tuple[float | None, str, str]]
"""(task, id) -> score, cluster, question with its reference."""


def compare(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """B minus A, task by task, on the items that both have a score for.

    Raises:
        EvaluationError: they have no item in common, or an item of the same id asks something else.
    """
    first, second = _scores(a), _scores(b)
    shared = [uid for uid in first if uid in second]
    changed = [uid for uid in shared if first[uid][2] != second[uid][2]]
    if not shared or changed:
        found = f"{changed[0][0]}:{changed[0][1]} asking something else" if changed else "none"
        raise EvaluationError(f"the same items in {a.path} and {b.path}", found, "evaluate both on the same tasks")
    by_task: dict[str, tuple[list[float], list[float], list[str]]] = {}
    left_out = 0
    for uid in shared:
        (score_a, cluster, _), (score_b, _, _) = first[uid], second[uid]
        if score_a is None or score_b is None:
            left_out += 1
            continue
        scores_a, scores_b, clusters = by_task.setdefault(uid[0], ([], [], []))
        scores_a.append(score_a)
        scores_b.append(score_b)
        clusters.append(cluster)
    return {
        "a": _who(a),
        "b": _who(b),
        "differing_settings": _differing_settings(a, b),
        "only_in_one": len(first) + len(second) - 2 * len(shared),
        "unscored_in_either": left_out,
        "tasks": {name: _task(*lists) for name, lists in by_task.items()},
        "average": estimate_json(
            bootstrap_average([([y - x for x, y in zip(xs, ys, strict=True)], c) for xs, ys, c in by_task.values()])
        ),
    }


def _scores(folder: RunFolder) -> Scores:
    return {
        item.uid: (item.score, item.row["cluster"], f"{item.row['question']}\n{item.row['reference']}")
        for item in scored_items(folder)
    }


def _task(a: list[float], b: list[float], clusters: list[str]) -> dict[str, Any]:
    paired = compare_paired(a, b, clusters)
    rest = {name: value for name, value in asdict(paired).items() if name != "difference"}
    means = {"mean_a": sum(a) / len(a), "mean_b": sum(b) / len(b)}
    return means | {"difference": estimate_json(paired.difference)} | rest


def _who(folder: RunFolder) -> dict[str, Any]:
    settings = folder.settings()
    judges = [judge["model"] for judge in settings.get("judge", {}).get("judges", [])]
    return {"folder": str(folder.path), **settings["generate"]["model"], "judges": judges}


def _differing_settings(a: RunFolder, b: RunFolder) -> list[str]:
    """Names of the settings that differ and so stand beside the models as a cause of the difference."""
    x, y = a.settings(), b.settings()
    differing = [name for name in ("prompt", "decoding") if x["generate"][name] != y["generate"][name]]
    return differing + (["judge"] if x.get("judge", {}).get("judges") != y.get("judge", {}).get("judges") else [])


def describe(result: Mapping[str, Any]) -> str:
    """The comparison as a few lines of text."""
    lines = [f"A {result['a']['folder']}    B {result['b']['folder']}"]
    if result["differing_settings"]:
        lines.append(f"Caution: they also differ in {', '.join(result['same_settings'])}.")
    for name, task in result["tasks"].items():
        d = task["difference"]
        lines.append(
            f"{name}: A {percent(task['mean_a'])}, B {percent(task['mean_b'])}, "
            f"B - A {_points(d['mean'])} points, 95 % interval {_range(d['low'], d['high'])} "
            f"({d['n']} items, {d['clusters']} clusters; only A right {task['only_a']}, only B right {task['only_b']}; "
            f"sign-flip p {_p(task['p_value'])}, McNemar p {_p(task['mcnemar_p'])}; "
            f"detectable at 80 % power: {percent(task['detectable'])})"
        )
    if len(result["tasks"]) > 1:
        e = result["average"]
        lines.append(f"average over tasks: B - A {_points(e['mean'])} points, {_range(e['low'], e['high'])}")
    if result["unscored_in_either"] or result["only_in_one"]:
        lines.append(
            f"left out: {result['unscored_in_either']} unscored in either, {result['only_in_one']} in one run only"
        )
    return "\n".join(lines)


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{_points(low)} to {_points(high)}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
