"""Scores corrected for the judge's known errors, where a calibration of the same judge is given."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.scored import ScoredItem
from evaluation.statistics.correction import JudgeErrors, corrected_mean
from medix.errors import EvaluationError


def read_calibration(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A `calibration.json` of the judge that scored the run.

    Raises:
        EvaluationError: no such file, or it is of another judge, of other settings, or of another rubric.
    """
    fix = "run `medix eval calibrate` with the judge of the run"
    if not path.is_file():
        raise EvaluationError("a calibration", f"none at {path}", fix)
    calibration: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    judging = settings.get("judge", {"judges": [None], "rubrics": {}})
    if calibration["judge"] != {**(judging["judges"][0] or {}), "sees_images": False}:
        raise EvaluationError(f"a calibration of {judging['judges'][0]}", f"one of {calibration['judge']}", fix)
    rubrics = set(judging["rubrics"].values()) - {"report", calibration["rubric"]}
    if rubrics:
        raise EvaluationError(
            f"a calibration of the rubric {', '.join(rubrics)}",
            f"one of {calibration['rubric']}",
            fix + " and --rubric",
        )
    return calibration


def corrected_scores(items: Iterable[ScoredItem], calibration: Mapping[str, Any]) -> dict[str, Any]:
    """By task: what the share of right answers would be if the judge did not err. Reports have grades and are left out.

    Only what the judge decided is corrected; what the rules decided is taken as it is.
    """
    by_task: dict[str, list[ScoredItem]] = defaultdict(list)
    for item in items:
        if item.score is not None and item.row["kind"] != "report":
            by_task[item.row["task"]].append(item)
    return {task: _corrected(members, calibration["all"]) for task, members in by_task.items()}


def _corrected(items: list[ScoredItem], figures: Mapping[str, Any]) -> dict[str, Any]:
    corrected = corrected_mean(
        [item.score or 0.0 for item in items],
        [item.how == "judge" for item in items],
        [item.row["cluster"] for item in items],
        JudgeErrors(figures["true_yes"], figures["positives"], figures["true_no"], figures["negatives"]),
    )
    return {"items": len(items), "judged": sum(item.how == "judge" for item in items), **asdict(corrected)}
