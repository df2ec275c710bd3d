"""Stage 3: figures from responses and judgements, as JSON, CSV and Markdown. Nothing is asked of anyone."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.correct import corrected_scores, read_calibration
from evaluation.ledger import Prices, ledger
from evaluation.run_folder import RunFolder
from evaluation.scored import scored_items
from evaluation.summary import summarise
from medix.errors import EvaluationError


def score(
    folder: RunFolder, prices: Prices | None = None, max_unscored: float = 0.02, calibration: Path | None = None
) -> dict[str, Any]:
    """Write `scores.json`, `scores.csv` and `scores.md`; returns what is in the first.

    Args:
        max_unscored: share of items that may stay without a score.
        calibration: `calibration.json` of the judge, for scores corrected for its errors.

    Raises:
        EvaluationError: more are unscored than that; the files are written all the same, and say so.
    """
    started = time.time()
    settings = folder.settings()
    summary = summarise(scored_items(folder), settings["generate"]["tasks"])
    share = summary["unscored"] / summary["items"] if summary["items"] else 0.0
    result = {
        "settings": settings,
        **summary,
        "unscored_share": share,
        "complete": settings["generate"]["complete"],
        "within_budget": settings["generate"]["complete"] and share <= max_unscored,
        "ledger": ledger(folder, prices or Prices()),
    }
    if calibration is not None:
        result["corrected"] = corrected_scores(scored_items(folder), read_calibration(calibration, settings))
    folder.write_text("scores.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    folder.write_text("scores.csv", _csv(result))
    folder.write_text("scores.md", markdown(result))
    folder.log_stage("score", started, {"items": summary["items"]})
    if not result["complete"]:
        raise EvaluationError(
            "every question asked", "a generate stage that did not come to its end", "run the same command again"
        )
    if not result["within_budget"]:
        reasons = {reason: n for task in summary["tasks"].values() for reason, n in task["unscored"].items()}
        raise EvaluationError(
            f"at most {max_unscored:.1%} of the items unscored",
            f"{summary['unscored']} of {summary['items']} ({', '.join(f'{r}: {n}' for r, n in reasons.items())})",
            "run the same command again (`--judge-failed-only` for judges), or raise --max-unscored",
        )
    return result


COLUMNS = ("task", "part", "items", "scored", "unscored", "clusters", "mean", "low", "high")


def _lines(result: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """(task, part, ...) of every task and its kinds, then of the averages."""
    for name, task in result["tasks"].items():
        parts = {"all": task} | (task["kinds"] if len(task["kinds"]) > 1 else {})
        for part, tally in parts.items():
            e = tally["estimate"]
            unscored = tally["items"] - tally["scored"]
            yield name, part, tally["items"], tally["scored"], unscored, e["clusters"], e["mean"], e["low"], e["high"]
    for name, e in result["averages"].items():
        yield (
            f"average: {name}",
            f"{e['tasks']} tasks",
            e["n"],
            e["n"],
            0,
            e["clusters"],
            e["mean"],
            e["low"],
            e["high"],
        )


def _csv(result: dict[str, Any]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if value is None else value for value in line] for line in _lines(result))
    return buffer.getvalue()


def markdown(result: dict[str, Any]) -> str:
    """The table that a person reads first."""
    generate = result["settings"]["generate"]
    judges = ", ".join(judge["model"] for judge in result["settings"].get("judge", {}).get("judges", [])) or "none"
    lines = [
        f"# {generate['model']['model']}",
        "",
        f"Prompt: {generate['prompt']}. Judge: {judges}. Unscored: {result['unscored']} of {result['items']}"
        + ("." if result["within_budget"] else ", **unfinished or over the budget: these figures are not a result**."),
        "",
        "| task | part | items | unscored | score | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for name, part, items, _, unscored, _, mean, low, high in _lines(result):
        lines.append(f"| {name} | {part} | {items} | {unscored} | {percent(mean)} | {interval(low, high)} |")
    for name, corrected in result.get("corrected", {}).items():
        value = f"{percent(corrected['value'])}, {interval(corrected['low'], corrected['high'])}"
        lines += ["", f"{name}, corrected for the judge's errors on {corrected['judged']} items: {value}"]
    return "\n".join(lines) + "\n"


def percent(value: float | None) -> str:
    """`12.3 %`, or a dash where there is no figure."""
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """`10.0 to 14.6 %`, or a dash."""
    return "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"
