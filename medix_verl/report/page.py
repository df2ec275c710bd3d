"""The page of one run: everything in one HTML file, no network, nothing executed but our own scripts."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from medix.files import write_atomically
from medix.pages import environment, json_block
from medix_verl.report.charts import component_charts, engine_charts, main_chart, validation_chart
from medix_verl.report.monitors import monitors
from medix_verl.report.overview import before_after, evaluations, links, status, tiles
from medix_verl.report.packing import pack_rollouts, pack_text
from medix_verl.report.rollouts import ADVANTAGE_EPSILON
from medix_verl.report.run_folder import RunFolder, divide_by_std, load_run
from medix_verl.report.settings import flatten, what_ran
from medix_verl.report.thumbnails import thumbnails

TEMPLATES: Final = Path(__file__).parent / "templates"


def write_report(run_dir: Path, data: Path | None = None) -> Path:
    """Write `report.html` into the run folder and return its path. What the run's files hold never raises.

    Args:
        data: a folder of prepared parquet files with the pictures, if they do not lie in the run's folder.

    Raises:
        DataError: the folder is not that of a run.
    """
    path = run_dir / "report.html"
    write_atomically(path, render_run(load_run(run_dir), data))
    return path


def render_run(run: RunFolder, data: Path | None = None) -> bytes:
    """Return the page, UTF-8."""
    images = thumbnails(run, data)
    index, chunks = pack_rollouts(run, images)
    main, components, watched = main_chart(run.metrics), component_charts(run.metrics), monitors(run)
    engine = [*validation_chart(run), *engine_charts(run.metrics)]
    level, health = status(run, watched)
    return render(
        "run.html.j2",
        {"charts": [main, *components, *engine, *watched], "components": run.metrics.components()},
        ("rollouts.js", "charts.js"),
        run=run,
        level=level,
        health=health,
        tiles=tiles(run),
        what_ran=what_ran(run),
        reward_rows=[row.values() for row in run.reward_table],
        links=[(path, name) for path, name in links(run) if path != "report.html"],
        before_after=before_after(run),
        evaluations=evaluations(run),
        main=main,
        components=components,
        engine=engine,
        monitors=watched,
        index=index,
        chunks=chunks,
        images=images,
        settings=flatten(run.config),
        summary=flatten(run.summary),
        divided=divide_by_std(run.config),
        epsilon=ADVANTAGE_EPSILON,
    )


def render(template: str, data: dict[str, Any], scripts: tuple[str, ...], **values: Any) -> bytes:
    """Return a page with plotly (see vendor/README.md), our scripts and the charts' data in it, UTF-8."""
    data["charts"] = [asdict(chart) for chart in data["charts"]]
    html = environment(TEMPLATES).get_template(template).render(
        report_style=Markup(_text("report.css")),
        library=_text("../vendor/plotly-basic.min.js"),
        packed_library=_packed_library(),
        scripts=[Markup(_text(name)) for name in scripts],
        data=json_block(data),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        **values,
    )  # fmt: skip
    return html.encode("utf-8", errors="replace")


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _packed_library() -> str:
    return pack_text(_text("../vendor/plotly-basic.min.js"))
