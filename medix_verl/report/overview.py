"""Above the fold: is the run healthy, where does it stand, what became of held-out prompts, and where is the rest."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from medix.errors import DataError
from medix.files import lookup
from medix_verl.report.charts import Chart, Level
from medix_verl.report.rollouts import Group
from medix_verl.report.run_folder import SCORE, RunFolder, Series, evaluated
from medix_verl.report.settings import shown
from medix_verl.training.watch import PEARSON, WatchdogOptions

HELD_OUT: Final = {"val_reward": SCORE, "accuracy": "acc", "format": "format", "modality": "modality"}
"""Name in the summary -> key of the flat reward."""
LINKS: Final = {
    "report.html": "the run on one page",
    "data/data.html": "the prepared data",
    "eval/compare.html": "base and trained model compared",
    "eval/compare.md": "the same as a table",
    "export/README.md": "the model card, beside the exported model",
    "curve.png": "the curve as a picture",
    "curve.csv": "the curve as a table",
    "rollouts/scored.jsonl": "every scored response",
    "train.log": "the log",
}
"""File of the run's folder -> what it is; the page and the terminal list those that exist."""


@dataclass(frozen=True)
class Tile:
    """One figure with what it means; `level` colours it."""

    label: str
    value: str
    note: str
    level: Level = "none"


def status(run: RunFolder, monitors: Iterable[Chart]) -> tuple[Level, str]:
    """Return the run's health, in one sentence: the worst that its guards and its monitors found."""
    stops = [finding for finding in run.guards if finding["level"] == "stop"]
    if stops:
        return "alert", f"Stopped by a guard at step {stops[-1]['step']}: {stops[-1]['message']}"
    if run.metrics.last_step is None:
        return "none", "No step logged yet"
    found = [f"{len(run.guards)} warning{'s' if len(run.guards) > 1 else ''} of the guards"] if run.guards else []
    speaking = [chart for chart in monitors if chart.level in ("watch", "alert")]
    found += [f"monitor: {chart.title.lower()}" for chart in speaking]
    level: Level = "alert" if any(chart.level == "alert" for chart in speaking) else "watch" if found else "ok"
    return level, "; ".join(found) or "All health checks passed"


def tiles(run: RunFolder) -> list[Tile]:
    """Return the figures to read first."""
    total, last = lookup(run.config, "trainer.total_training_steps"), run.metrics.last_step or 0
    is_known = isinstance(total, int)
    state = "logged so far" if not is_known else "finished" if last >= total else "running, or ended early"
    found = [Tile("Steps", f"{last} of {total}" if is_known else str(last), state)]
    found.append(_trend("Reward", run.metrics.series(f"reward/{SCORE}/mean"), "mean of a step, first to last"))
    for (source, value), series in run.metrics.validation().items():
        if value == "acc":
            found.append(_trend("Validation accuracy", series, f"{source}, first to last validation"))
    failures, pearson = run.metrics.series("reward/llm_accuracy_ok/mean"), run.metrics.series(PEARSON)
    if failures:
        failed = 1 - min(failures.values)
        found.append(Tile("Judge failures", f"{failed:.1%}", "highest share of a step", "alert" if failed else "ok"))
    if pearson:
        note = "lowest Pearson correlation of all steps; 1 is the same model"
        found.append(
            Tile("Rollout and actor agree", f"{min(pearson.values):.4f}", note, _agreement(run, min(pearson.values)))
        )
    if seconds := run.metrics.series("timing_s/step").values:
        found.append(Tile("Seconds a step", f"{median(seconds):.1f}", "median"))
    return found


def _trend(label: str, series: Series, note: str) -> Tile:
    ends = series.values if len(series.values) < 2 else (series.values[0], series.values[-1])
    return Tile(label, " → ".join(f"{value:.2f}" for value in ends) or "–", note if series else "not logged yet")


def _agreement(run: RunFolder, lowest: float) -> Level:
    """Judge the correlation by the run's own guard, which differs with the precision."""
    own, default = lookup(run.config, "medix.watchdog") or {}, WatchdogOptions()
    if lowest < own.get("pearson_stop_below", default.pearson_stop_below):
        return "alert"
    return "watch" if lowest < own.get("pearson_warn_below", default.pearson_warn_below) else "ok"


def summarise(run: RunFolder, seconds_total: float) -> dict[str, Any]:
    """Return the contents of `summary.json`: held-out figures before and after, time, and how far the engines agree.

    A figure that no validation measured, before the first step or after the last, is None.

    Raises:
        DataError: the run has no metrics of a training step.
    """
    seconds = run.metrics.series("timing_s/step")
    if not seconds:
        raise DataError(f"{run.path} has no training step; a summary says what training did.", "Let the run end first.")
    summary: dict[str, Any] = {}
    for name, key in HELD_OUT.items():
        measured = run.held_out(key)
        ends = list(zip(measured.steps, measured.values, strict=True))
        before = ends[0][1] if len(ends) > 1 or (ends and ends[0][0] == 0) else None
        after = ends[-1][1] if ends and ends[-1][0] > 0 else None
        for when, value in (("before", before), ("after", after)):
            summary[f"{name}_{when}"] = None if value is None else round(value, 4)
    loss = lookup(run.config, "actor_rollout_ref.actor.policy_loss.loss_mode")
    advantages = lookup(run.config, "algorithm.adv_estimator")
    return {
        **summary,
        "steps": seconds.steps[-1],
        "seconds_total": round(seconds_total, 1),
        "seconds_per_step_median": round(median(seconds.values), 2),
        "rollout_actor_probs_pearson_corr_min": min(run.metrics.series(PEARSON).values, default=None),
        "algorithm": shown(advantages if loss in (None, "vanilla") else loss),
        "versions": run.versions,
    }


def before_after(run: RunFolder) -> dict[str, Any] | None:
    """Return the held-out prompt that gained most from the first to the last validation, and how many gained and lost.

    Of equal gains a prompt with a modality comes first, as it has a picture, then the first by name.
    """
    by_step: dict[int, dict[str, Group]] = {}
    for group in run.validation_groups:
        by_step.setdefault(group.step, {})[group.sample_id] = group
    if len(by_step) < 2:
        return None
    first, last = by_step[min(by_step)], by_step[max(by_step)]
    gains = {sample: last[sample].mean - first[sample].mean for sample in first.keys() & last.keys()}
    if not gains:
        return None
    best = min(gains, key=lambda sample: (-round(gains[sample], 3), not last[sample].modality, sample))
    better, worse = sum(gain > 0.005 for gain in gains.values()), sum(gain < -0.005 for gain in gains.values())
    return {"pair": (first[best], last[best]), "better": better, "worse": worse, "all": len(gains)}


def evaluations(run: RunFolder) -> list[dict[str, str]]:
    """Return a row for each task of each `medix eval` in the run's `eval/` folder, with the page that has its items."""
    rows = []
    for name, task, (items, score, interval), _ in evaluated(run.path, run.notes):
        page = f"eval/{name}/evaluation.html"
        link = page if (run.path / page).is_file() else ""
        rows.append({"name": name, "page": link, "task": task, "items": items, "score": score, "interval": interval})
    return rows


def links(run: RunFolder, data: Path | None = None) -> list[tuple[str, str]]:
    """Return (relative path, name) of the files that a reader of the run's page may want next.

    Args:
        data: a folder of prepared data outside of the run's, whose page is linked too.
    """
    elsewhere = {os.path.relpath(data / "data.html", run.path): LINKS["data/data.html"]} if data else {}
    return [(path, name) for path, name in (LINKS | elsewhere).items() if (run.path / path).is_file()]
