"""Two runs on the same items: paired differences by task, and of the average over tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evaluation.item import content_hash
from evaluation.judging.stage import scored_items
from evaluation.run_folder import RunFolder
from evaluation.statistics import average_of_means, compare_paired, percent
from medix.errors import EvaluationError


def compare(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """Return B minus A, task by task, on the items that both have a score for.

    Raises:
        EvaluationError: they have no item in common, or an item of the same id asks something else.
    """
    first, second = _scores(a), _scores(b)
    shared = [uid for uid in first if uid in second]
    changed = [uid for uid in shared if first[uid][2] != second[uid][2]]
    if not shared or changed:
        task, item = changed[0] if changed else ("", "")
        found = f"item {item} of {task} asks something else" if changed else "no item is in both"
        raise EvaluationError(
            f"{a.path} and {b.path} can not be compared: {found}.", "Evaluate both on the same tasks and data."
        )
    by_task: defaultdict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for uid in shared:
        (score_a, cluster, _), (score_b, _, _) = first[uid], second[uid]
        if score_a is not None and score_b is not None:
            by_task[uid[0]].append((score_a, score_b, cluster))
    x = _settings(a)
    y = _settings(b)
    differences = [([y - x for x, y, _ in pairs], [cluster for *_, cluster in pairs]) for pairs in by_task.values()]
    return {
        "a": _who(a),
        "b": _who(b),
        # Beside the models a cause of the difference: name -> [A's, B's].
        "differing_settings": {name: [x.get(name), y.get(name)] for name in {**x, **y} if x.get(name) != y.get(name)},
        "only_in_a": len(first) - len(shared),
        "only_in_b": len(second) - len(shared),
        "unscored_in_either": len(shared) - sum(map(len, by_task.values())),
        "tasks": {name: _task(pairs) for name, pairs in by_task.items()},
        "average": average_of_means(differences, signed=True).as_json(),
    }


def _scores(folder: RunFolder) -> dict[tuple[str, str], tuple[float | None, str, str]]:
    """Return (task, id) -> score, cluster, hash of the question with its reference."""
    return {
        item.uid: (item.score, item.row.cluster, content_hash(item.row.question, item.row.reference))
        for item in scored_items(folder)
    }


def _task(pairs: list[tuple[float, float, str]]) -> dict[str, Any]:
    a, b, clusters = zip(*pairs, strict=True)
    paired = compare_paired(a, b, clusters)
    means = {"mean_a": sum(a) / len(a), "mean_b": sum(b) / len(b)}
    return means | asdict(paired) | {"difference": paired.difference.as_json()}


def _who(folder: RunFolder) -> dict[str, Any]:
    settings = folder.settings()
    judges = [judge["model"] for judge in settings.get("judge", {}).get("judges", [])]
    return {"folder": str(folder.path), **settings["generate"]["model"], "judges": judges}


def _settings(folder: RunFolder) -> dict[str, Any]:
    settings = folder.settings()
    generate: dict[str, Any] = {**settings["generate"]}
    judging = settings.get("judge", {})
    asked = {name: generate.get(name) for name in ("prompt", "template", "protocol", "limit")}
    decoding = {f"decoding.{name}": value for name, value in generate["decoding"].items()}
    return asked | decoding | {"judges": judging.get("judges"), "rubrics": judging.get("rubrics")}


def describe(result: Mapping[str, Any]) -> str:
    """Return the comparison as a few lines of text."""
    text = [f"A: {result['a']['folder']}", f"B: {result['b']['folder']}"]
    if result["differing_settings"]:
        text.append("The runs also differ in what follows, so the difference is not the models' alone:")
        text += [f"  {name}: A {_short(x)}, B {_short(y)}" for name, (x, y) in result["differing_settings"].items()]
    for name, task in result["tasks"].items():
        e = task["difference"]
        text += [
            f"{name}: A {percent(task['mean_a'])}, B {percent(task['mean_b'])}, {_difference(e)}",
            f"  {e['n']} items in {e['clusters']} clusters; A alone better on {task['only_a']}, B on {task['only_b']}",
            f"  sign-flip p {_p(task['p_value'])}, McNemar p {_p(task['mcnemar_p'])};"
            f" detectable at 80 % power: {percent(task['detectable'])}",
        ]
    if len(result["tasks"]) > 1:
        text.append(f"average over {len(result['tasks'])} tasks: {_difference(result['average'])}")
    left_out = {"unscored in either": result["unscored_in_either"]}
    left_out |= {"only in A": result["only_in_a"], "only in B": result["only_in_b"]}
    if any(left_out.values()):
        text.append("left out: " + ", ".join(f"{count} items {why}" for why, count in left_out.items() if count))
    return "\n".join(text)


def _short(value: Any) -> str:
    text = str(value)
    line = " ".join(text.split())
    return text if len(text) <= 160 and line == text else f"{line[:140]} ... ({content_hash(text)[:8]})"


def _difference(e: Mapping[str, Any]) -> str:
    if e["mean"] is None:
        return "no difference"
    between = "" if e["low"] is None else f" (95 %: {100 * e['low']:+.1f} to {100 * e['high']:+.1f})"
    return f"B - A {100 * e['mean']:+.1f} points{between}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
