"""Above the fold: is the run healthy, and where does it stand, in a few figures."""

from __future__ import annotations

from dataclasses import dataclass

from medix_verl.report.charts import Level, judge_retries
from medix_verl.report.run_folder import RunFolder, lookup
from medix_verl.report.series import SCORE, Series
from medix_verl.training.guards import PEARSON
from medix_verl.training.watchdog import WatchdogOptions


@dataclass(frozen=True)
class Status:
    level: Level
    text: str


@dataclass(frozen=True)
class Tile:
    """One figure with what it means; `level` colours it."""

    label: str
    value: str
    note: str
    level: Level = "none"


def status(run: RunFolder) -> Status:
    """One sentence on the run's health, from its guards."""
    stops = [finding for finding in run.guards if finding.get("level") == "stop"]
    if stops:
        return Status("alert", f"Stopped by a guard at step {stops[-1].get('step')}: {stops[-1].get('message')}")
    if run.guards:
        return Status(
            "watch", f"{len(run.guards)} warning{'s' if len(run.guards) > 1 else ''} of the guards, see below."
        )
    if run.metrics.last_step is None:
        return Status("none", "No step logged yet")
    return Status("ok", "No guard has spoken.")


def tiles(run: RunFolder) -> list[Tile]:
    """The figures to read first."""
    metrics = run.metrics
    found = [_progress(run), _trend("Reward", metrics.series(f"reward/{SCORE}/mean"), "mean of a step, first to last")]
    for (source, value), series in metrics.validation().items():
        if value == "acc":
            size = _validation_size(run, series.steps[-1])
            found.append(_trend("Validation accuracy", series, f"{source}{size}, first to last validation"))
    return [*found, _judge(run), _agreement(run), _seconds(metrics.series("timing_s/step"))]


def _progress(run: RunFolder) -> Tile:
    total, last = lookup(run.config, "trainer.total_training_steps"), run.metrics.last_step or 0
    if not isinstance(total, int):
        return Tile("Steps", str(last), "logged so far")
    return Tile("Steps", f"{last} of {total}", "finished" if last >= total else "running, or ended early")


def _trend(label: str, series: Series, note: str) -> Tile:
    if not series:
        return Tile(label, "–", "not logged yet")
    if len(series.steps) == 1:
        return Tile(label, f"{series.values[0]:.2f}", note)
    return Tile(label, f"{series.values[0]:.2f} → {series.values[-1]:.2f}", note)


def _validation_size(run: RunFolder, step: int) -> str:
    size = sum(len(group.responses) for group in run.validation_groups if group.step == step)
    return f", {size} responses" if size else ""


def _judge(run: RunFolder) -> Tile:
    ok, retries = run.metrics.series("reward/llm_accuracy_ok/mean"), judge_retries(run)
    if not ok:
        return Tile("Judge failures", "–", "not logged")
    failed = 1 - min(ok.values)
    again = f"asked again for {sum(retries.values) / len(retries.values):.1%}" if retries else "highest share of a step"
    return Tile("Judge failures", f"{failed:.1%}", again, "alert" if failed > 0 else "ok")


def _agreement(run: RunFolder) -> Tile:
    label, series = "Rollout/actor Pearson", run.metrics.series(PEARSON)
    if not series:
        return Tile(label, "–", "not logged")
    lowest = min(series.values)
    stop, warn = limit(run, "pearson_stop_below"), limit(run, "pearson_warn_below")
    level: Level = "alert" if lowest < stop else "watch" if lowest < warn else "ok"
    return Tile(label, f"{lowest:.4f}", "lowest of all steps; 1 is the same model", level)


def limit(run: RunFolder, name: str) -> float:
    """The run's own setting of a guard, which differs with the precision; the default where the run has none."""
    value = lookup(run.config, f"medix.watchdog.{name}")
    return float(value if isinstance(value, int | float) else getattr(WatchdogOptions(), name))


def _seconds(series: Series) -> Tile:
    if not series:
        return Tile("Seconds a step", "–", "not logged")
    return Tile("Seconds a step", f"{sorted(series.values)[len(series.values) // 2]:.1f}", "median")
