"""The main curve of a run as `curve.png` and `curve.csv`: reward and its components by step, and the validations."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError, DataError
from medix_verl.report.series import SCORE, Metrics, Series, load_metrics

COLOURS: Final = {
    SCORE: "#111111",
    "llm_accuracy": "#0072b2",
    "embed_accuracy": "#d55e00",
    "modality": "#009e73",
    "format": "#aa4499",
}
"""Okabe and Ito's set, which the colour-blind can tell apart."""
OWN_COLOURS: Final = ("#b8860b", "#56b4e9", "#882255", "#44aa99", "#999933")
WIDTH_IN, HEIGHT_IN, DPI = 9.0, 4.6, 140


def write_curve(run_dir: Path) -> tuple[Path, Path]:
    """Write `curve.png` and `curve.csv` into the run folder and return their paths.

    Raises:
        DataError: the run has logged no reward and no validation yet.
        ConfigError: matplotlib is not installed.
    """
    metrics = load_metrics(run_dir)
    if not metrics.training_steps and not metrics.validation():
        raise DataError(
            "a run with at least one logged step",
            f"none in {run_dir / 'metrics.jsonl'}",
            "name the folder of a run that has started training, e.g. outputs/demo",
        )
    return _write_png(metrics, run_dir / "curve.png"), _write_csv(metrics, run_dir / "curve.csv")


def colour_of(name: str, position: int = 0) -> str:
    """A component's colour; `position` among the run's components decides for those that are not ours."""
    return COLOURS.get(name) or OWN_COLOURS[position % len(OWN_COLOURS)]


def _columns(metrics: Metrics) -> dict[str, Series]:
    """Column name -> series, in reading order."""
    columns: dict[str, Series] = {}
    for name in (SCORE, *metrics.components()):
        columns[name] = metrics.series(f"reward/{name}/mean")
        columns[f"{name}_std"] = metrics.series(f"reward/{name}/std")
    for (source, value), series in metrics.validation().items():
        columns[f"val/{source}/{value}"] = series
    return columns


def _write_csv(metrics: Metrics, path: Path) -> Path:
    columns = _columns(metrics)
    cells = {name: dict(zip(series.steps, series.values, strict=True)) for name, series in columns.items()}
    steps = sorted({step for series in columns.values() for step in series.steps})
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *columns])
        for step in steps:
            writer.writerow([step, *(f"{cells[name][step]:.6g}" if step in cells[name] else "" for name in columns)])
    os.replace(partial, path)
    return path


def _write_png(metrics: Metrics, path: Path) -> Path:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ConfigError("matplotlib, for curve.png", "no such package", "pip install 'matplotlib>=3.9'") from error

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_training(axes, metrics)
    _draw_validation(axes, metrics)
    axes.set_xlabel("step")
    axes.set_ylabel("mean of the step's responses, 0 to 1")
    axes.set_title(f"{path.resolve().parent.name}: reward and its components", loc="left", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    partial = path.with_name(path.name + ".part")
    figure.savefig(partial, format="png")
    os.replace(partial, path)
    return path


def _draw_training(axes: Any, metrics: Metrics) -> None:
    for position, name in enumerate((SCORE, *metrics.components())):
        mean, std = metrics.series(f"reward/{name}/mean"), metrics.series(f"reward/{name}/std")
        if not mean:
            continue
        is_total = name == SCORE
        label = "reward (± 1 std of responses)" if is_total else name
        colour = colour_of(name, position)
        width = 2.4 if is_total else 1.3
        # One point alone has no line to be seen by.
        marker = "." if len(mean.steps) < 3 else None
        axes.plot(mean.steps, mean.values, label=label, color=colour, linewidth=width, marker=marker, zorder=3)
        if is_total and std.steps == mean.steps:
            low = [max(0.0, m - s) for m, s in zip(mean.values, std.values, strict=True)]
            high = [min(1.0, m + s) for m, s in zip(mean.values, std.values, strict=True)]
            axes.fill_between(mean.steps, low, high, color=colour, alpha=0.1, linewidth=0)


def _draw_validation(axes: Any, metrics: Metrics) -> None:
    validation = metrics.validation()
    sources = sorted({source for source, _ in validation})
    for (source, value), series in validation.items():
        if value not in ("acc", SCORE):
            continue
        suffix = f", {source}" if len(sources) > 1 else ""
        label = f"validation {'accuracy' if value == 'acc' else 'reward'}{suffix}"
        marker, colour = ("D", COLOURS["llm_accuracy"]) if value == "acc" else ("o", COLOURS[SCORE])
        style = {"linestyle": ":", "linewidth": 0.8, "markerfacecolor": "white", "markersize": 7}
        axes.plot(series.steps, series.values, marker=marker, label=label, color=colour, zorder=4, **style)
