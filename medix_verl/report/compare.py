"""Several runs on one page: what differs in their settings, how they ended, and their curves laid over each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from medix_verl.report.charts import UNIT_RANGE, Chart, line
from medix_verl.report.page import render
from medix_verl.report.run_folder import RunFolder, load_run
from medix_verl.report.series import SCORE, Metrics, Series
from medix_verl.report.settings import difference

RUN_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#56b4e9", "#882255", "#44aa99")
LAST_SHARE: Final = 0.1
"""Of a run's steps, the last ones, over which its final figures are averaged."""
MAX_SETTINGS: Final = 200


def write_comparison(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page and return its path: `out`, or `compare_A_B.html` beside the first run."""
    runs = [load_run(path) for path in run_dirs]
    path = out or run_dirs[0].resolve().parent / f"compare_{'_'.join(run.name for run in runs)}.html"
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(render_comparison(runs))
    os.replace(partial, path)
    return path


def render_comparison(runs: Sequence[RunFolder]) -> bytes:
    names = labels(runs)
    charts = overlays(runs, names)
    settings = difference(runs)
    return render(
        "compare.html.j2",
        {"charts": [chart.as_json() for chart in charts]},
        ("charts.js",),
        names=names,
        notes=[f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes],
        settings=settings[:MAX_SETTINGS],
        settings_left=max(0, len(settings) - MAX_SETTINGS),
        results=results(runs),
        charts=charts,
    )


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Folder names, numbered where two are the same."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]


def results(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """The ablation table: (figure, its value in each run). Final training figures are means of the last steps."""
    components = list(dict.fromkeys(name for run in runs for name in run.metrics.components()))
    sources = sorted({key for run in runs for key in run.metrics.validation() if key[1] in ("acc", SCORE)})
    rows: list[tuple[str, Callable[[Metrics], str]]] = [("Steps", lambda m: str(m.last_step or 0))]
    for source, value in sources:
        key, label = (source, value), {"acc": "accuracy", SCORE: "reward"}[value]
        rows.append((f"Last validation {label}, {source}", lambda m, key=key: _last(m.validation().get(key))))  # type: ignore[misc]
        rows.append((f"Best validation {label}, {source}", lambda m, key=key: _best(m.validation().get(key))))  # type: ignore[misc]
    for name in (SCORE, *components):
        label = "Reward" if name == SCORE else name
        rows.append((f"{label}, last steps", lambda m, name=name: _tail(m.series(f"reward/{name}/mean"))))  # type: ignore[misc]
    rows.append(("Response length, last steps", lambda m: _tail(m.series("response_length/mean"))))
    rows.append(("Median seconds a step", lambda m: _median(m.series("timing_s/step"))))
    return [(label, [figure(run.metrics) for run in runs]) for label, figure in rows]


def overlays(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Chart]:
    """One chart a figure, one line a run."""
    components = list(dict.fromkeys(name for run in runs for name in run.metrics.components()))
    sources = sorted({key for run in runs for key in run.metrics.validation() if key[1] == "acc"})
    figures: list[tuple[str, Callable[[Metrics], Series], bool]] = [
        ("Reward", lambda m: m.series(f"reward/{SCORE}/mean"), True),
        *((f"Validation accuracy, {key[0]}", _validation(key), True) for key in sources),
        *((name, _metric(f"reward/{name}/mean"), True) for name in components),
        ("Response length", _metric("response_length/mean"), False),
        ("Entropy", _metric("actor/entropy"), False),
        ("KL of the update", _metric("actor/ppo_kl"), False),
        ("Seconds a step", _metric("timing_s/step"), False),
    ]
    charts = []
    for number, (title, series_of, is_share) in enumerate(figures):
        found = [(name, series_of(run.metrics)) for name, run in zip(names, runs, strict=True)]
        if not any(series for _, series in found):
            continue
        data = [line(series, name, RUN_COLOURS[i % len(RUN_COLOURS)], 2) for i, (name, series) in enumerate(found)]
        ends = "; ".join(f"{name} ends at {series.values[-1]:.3g}" for name, series in found if series)
        axis = {"range": UNIT_RANGE} if is_share else {}
        charts.append(Chart("main" if number == 0 else f"overlay-{number}", title, f"{ends}.", data, {"yaxis": axis}))
    return charts


def _metric(key: str) -> Callable[[Metrics], Series]:
    return lambda metrics: metrics.series(key)


def _validation(key: tuple[str, str]) -> Callable[[Metrics], Series]:
    return lambda metrics: metrics.validation().get(key, Series([], []))


def _tail(series: Series) -> str:
    if not series:
        return "–"
    count = max(1, round(len(series.values) * LAST_SHARE))
    return f"{fmean(series.values[-count:]):.3f}"


def _last(series: Series | None) -> str:
    return f"{series.values[-1]:.3f} (step {series.steps[-1]})" if series else "–"


def _best(series: Series | None) -> str:
    if not series:
        return "–"
    best = max(series.values)
    return f"{best:.3f} (step {series.steps[series.values.index(best)]})"


def _median(series: Series) -> str:
    return f"{sorted(series.values)[len(series.values) // 2]:.1f}" if series else "–"
