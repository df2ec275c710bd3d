"""`curve.png`, the main chart of the page as a picture, and `curve.csv`, its figures."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Final

from medix.errors import ConfigError, DataError
from medix.files import write_atomically
from medix_verl.report.charts import INK, Chart, main_chart
from medix_verl.report.run_folder import load_metrics

STYLES: Final = {"solid": "-", "dash": "--", "dot": ":"}
MARKERS: Final = {"diamond-open": "D", "circle-open": "o"}


def write_curve(run_dir: Path) -> tuple[Path, Path]:
    """Write `curve.png` and `curve.csv` into the run folder and return their paths.

    Raises:
        DataError: the run has logged no reward and no validation yet.
        ConfigError: matplotlib is not installed.
    """
    chart = main_chart(load_metrics(run_dir))
    if not any(trace["x"] for trace in chart.data):
        problem = f"{run_dir / 'metrics.jsonl'} holds no logged step."
        raise DataError(problem, "Name the folder of a run that has started training, e.g. outputs/demo.")
    png, table = run_dir / "curve.png", run_dir / "curve.csv"
    write_atomically(table, _csv(chart))
    write_atomically(png, _png(chart, run_dir.resolve().name))
    return png, table


def _csv(chart: Chart) -> str:
    """Return a column for each line of the chart; `low` and `high` are the edges of the reward's band."""
    cells = {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in chart.data}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", *cells])
    for step in sorted({step for column in cells.values() for step in column}):
        writer.writerow([step, *(column.get(step, "") for column in cells.values())])
    return text.getvalue()


def _png(chart: Chart, name: str) -> bytes:
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ConfigError("curve.png needs matplotlib.", "pip install 'matplotlib>=3.9'") from error

    # matplotlib has read a `matplotlibrc` of the working directory, which may be the folder of somebody's run.
    matplotlib.rcdefaults()
    figure = Figure(figsize=(9.0, 4.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for before, trace in zip([{}, *chart.data], chart.data, strict=False):
        _draw(axes, trace, before)
    axes.set(xlabel="step", ylabel="mean of the step's responses, 0 to 1", ylim=chart.layout["yaxis"]["range"])
    axes.set_title(f"{name}: reward and its components", loc="left", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Any, trace: dict[str, Any], before: dict[str, Any]) -> None:
    """Draw one plotly trace; a filled one fills the space up to the trace before it, as in the page."""
    stroke, marker = trace["line"], trace["marker"]
    colour = "#111111" if stroke["color"] == INK else stroke["color"]
    if "fill" in trace:
        axes.fill_between(trace["x"], before["y"], trace["y"], color=colour, alpha=0.1, linewidth=0)
    elif stroke["width"] and trace["x"]:
        symbol = MARKERS.get(marker.get("symbol", ""), "." if len(trace["x"]) < 3 else "")
        style = {"linestyle": STYLES[stroke["dash"]], "linewidth": stroke["width"], "color": colour}
        axes.plot(trace["x"], trace["y"], marker=symbol, markerfacecolor="white", label=trace["name"], **style)
