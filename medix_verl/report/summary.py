"""The closing summary of a run: held-out figures before and after, health, time, and how the exported model answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

from medix.errors import DataError
from medix_verl.training.guards import PEARSON
from medix_verl.training.metrics_file import read_metrics

HELD_OUT = {"reward": "score", "accuracy": "acc", "format": "format", "modality": "modality"}
"""Name in the summary -> key of the flat reward."""
NOT_APPLICABLE = -1.0


def read_scored(path: Path) -> list[dict[str, Any]]:
    """Records of a `scored.jsonl`; half-written lines are passed over."""
    records = []
    with path.open("rb") as lines:
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


def held_out_means(records: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Step -> mean held-out figures (greedy validation), each over the responses to which it applies.

    After a resume a step may have been validated twice: the last record of a sample counts.
    """
    by_step: dict[int, dict[str, Mapping[str, float]]] = {}
    for record in records:
        if record["split"] != "train":
            by_step.setdefault(int(record["step"]), {})[record["sample_id"]] = record["scores"]
    return {
        step: {name: _mean(scores[key] for scores in rows.values()) for name, key in HELD_OUT.items()}
        for step, rows in sorted(by_step.items())
    }


def _mean(values: Iterable[float]) -> float:
    applicable = [value for value in values if value != NOT_APPLICABLE]
    return fmean(applicable) if applicable else float("nan")


def summarise(run_dir: Path, seconds_total: float, algorithm: str) -> dict[str, Any]:
    """The contents of `summary.json`.

    Raises:
        DataError: the run has no metrics or fewer than two validations.
    """
    metrics = [row for row in read_metrics(run_dir / "metrics.jsonl") if "timing_s/step" in row["data"]]
    held_out = held_out_means(read_scored(run_dir / "rollouts" / "scored.jsonl"))
    if not metrics or len(held_out) < 2:
        found = f"{len(metrics)} training steps and {len(held_out)} validations in {run_dir}"
        fix = "let the run end first; two validations are compared, so leave trainer.val_before_train=true"
        raise DataError("a run with steps and a validation before and after", found, fix)
    before, after = held_out[min(held_out)], held_out[max(held_out)]
    pearson = [row["data"][PEARSON] for row in metrics if row["data"].get(PEARSON) is not None]
    summary: dict[str, Any] = {}
    for name in HELD_OUT:
        key = "val_reward" if name == "reward" else name
        summary[f"{key}_before"], summary[f"{key}_after"] = round(before[name], 4), round(after[name], 4)
    return {
        **summary,
        "steps": int(metrics[-1]["step"]),
        "seconds_total": round(seconds_total, 1),
        "seconds_per_step_median": round(median(row["data"]["timing_s/step"] for row in metrics), 2),
        "rollout_actor_probs_pearson_corr_min": min(pearson, default=None),
        "algorithm": algorithm,
        "versions": json.loads((run_dir / "versions.json").read_text(encoding="utf-8")),
    }
