"""Several runs on one page: what differs in their settings, how they ended, and their curves laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from medix.files import write_atomically
from medix_verl.report.charts import OTHER_COLOURS, SHARE_AXIS, Chart, line
from medix_verl.report.page import render
from medix_verl.report.run_folder import SCORE, RunFolder, Series, in_order, load_run
from medix_verl.report.settings import difference

LAST_SHARE: Final = 0.1
"""Of a run's steps, the last ones, over which its final figures are averaged."""
MAX_SETTINGS: Final = 200
ENGINE: Final = {
    "Response length": "response_length/mean",
    "Entropy": "actor/entropy",
    "KL of the update": "actor/ppo_kl",
    "Seconds a step": "timing_s/step",
}


def write_comparison(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page and return its path: `out`, or `compare_A_B.html` beside the first run."""
    runs = [load_run(path) for path in run_dirs]
    path = out or run_dirs[0].resolve().parent / f"compare_{'_'.join(run.name for run in runs)}.html"
    names = labels(runs)
    settings = difference(runs)
    charts = overlays(runs, names)
    page = render(
        "compare.html.j2",
        {"charts": charts},
        ("charts.js",),
        names=names,
        notes=[f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes],
        warnings=warnings(runs),
        settings=[(path, *values) for path, values in settings[:MAX_SETTINGS]],
        settings_left=max(0, len(settings) - MAX_SETTINGS),
        results=[(title, *values, change) for title, values, change in results(runs)],
        charts=charts,
    )
    write_atomically(path, page)
    return path


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Return the folder names, numbered if two are the same."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]


def warnings(runs: Sequence[RunFolder]) -> list[str]:
    """Return what makes the runs' figures differ in meaning, not in size."""
    found = []
    if len({run.metrics.last_step for run in runs}) > 1:
        found.append("The runs have different numbers of steps: compare curves at the same step, not their ends.")
    rewards = {tuple((row["component"], row["effective"]) for row in run.reward_table) for run in runs}
    if len(rewards) > 1:
        found.append("The runs have different rewards: their totals do not compare. Compare accuracies and components.")
    return found


def figures(runs: Sequence[RunFolder]) -> dict[str, list[Series]]:
    """Return title -> the series of each run, for everything that some run has logged."""
    validations = sorted({key for run in runs for key in run.metrics.validation()})
    components = in_order(name for run in runs for name in run.metrics.components())
    nothing = Series([], [])
    found = {"Reward": [run.metrics.series(f"reward/{SCORE}/mean") for run in runs]}
    for source, value in validations:
        title = f"Validation {'accuracy' if value == 'acc' else 'reward'}, {source}"
        found[title] = [run.metrics.validation().get((source, value), nothing) for run in runs]
    found |= {name: [run.metrics.series(f"reward/{name}/mean") for run in runs] for name in components}
    found |= {title: [run.metrics.series(key) for run in runs] for title, key in ENGINE.items()}
    return {title: series for title, series in found.items() if any(series)}


def results(runs: Sequence[RunFolder]) -> list[tuple[str, list[str], str]]:
    """Return the table of an ablation: figure, its value in each run, and the last run's difference from the first.

    Values are means of the last steps; of the few validations that is the last one.
    """
    steps = [run.metrics.last_step or 0 for run in runs]
    table = [("Steps", [str(count) for count in steps], f"{steps[-1] - steps[0]:+d}")]
    for title, found in figures(runs).items():
        means = [fmean(s.values[-max(1, round(len(s.values) * LAST_SHARE)) :]) if s else None for s in found]
        first, last = means[0], means[-1]
        change = "–" if first is None or last is None else f"{last - first:+{_form(last - first)}}"
        table.append((title, ["–" if mean is None else f"{mean:{_form(mean)}}" for mean in means], change))
    return table


def _form(value: float) -> str:
    """Return a format with three decimals, or with two digits where these would be noughts, as of a KL."""
    return ".3f" if value == 0 or abs(value) >= 0.01 else ".2g"


def overlays(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Chart]:
    """Return one chart a figure, with one line a run."""
    charts = []
    for number, (title, found) in enumerate(figures(runs).items()):
        pairs = list(zip(names, found, strict=True))
        data = [line(series, name, OTHER_COLOURS[i % len(OTHER_COLOURS)], 2) for i, (name, series) in enumerate(pairs)]
        ends = "; ".join(f"{name} ends at {series.values[-1]:.3g}" for name, series in pairs if series)
        layout = {} if title in ENGINE else SHARE_AXIS
        charts.append(Chart(f"overlay-{number}", title, f"{ends}.", data, layout))
    return charts
