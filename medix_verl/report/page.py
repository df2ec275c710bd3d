"""The page of one run: everything in one HTML file, no network, nothing executed but our own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medix.files import write_atomically
from medix_verl.report.charts import component_charts, engine_charts, main_chart, validation_chart
from medix_verl.report.embedded import pack_rollouts, pack_text, thumbnails
from medix_verl.report.monitors import monitors
from medix_verl.report.overview import before_after, evaluations, links, status, tiles
from medix_verl.report.rollouts import ADVANTAGE_EPSILON
from medix_verl.report.run_folder import RunFolder, divide_by_std, load_run
from medix_verl.report.settings import flatten, what_ran

SCRIPTS: Final = ("rollouts.js", "charts.js")


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
        {"charts": [chart.as_json() for chart in (main, *components, *engine, *watched)]},
        SCRIPTS,
        run=run,
        level=level,
        health=health,
        tiles=tiles(run),
        what_ran=what_ran(run),
        links=links(run),
        before_after=before_after(run),
        evaluations=evaluations(run),
        main=main,
        components=components,
        engine=engine,
        monitors=watched,
        index=index,
        chunks=chunks,
        images=images,
        images_json=json_block(images),
        settings=flatten(run.config),
        summary=flatten(run.summary),
        divided=divide_by_std(run.config),
        epsilon=ADVANTAGE_EPSILON,
    )


def render(template: str, data: dict[str, Any], scripts: tuple[str, ...], **values: Any) -> bytes:
    """Return a template with plotly, our scripts and the charts' data in it, under a policy for just these scripts."""
    codes = [_asset(name) for name in scripts]
    library, library_hash = packed_plotly()
    hashes = " ".join([library_hash, *map(_policy_hash, codes)])
    # Plotly writes style rules; images are data URIs, and the PNG that a reader saves is a blob.
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    html = _environment().get_template(template).render(
        policy=policy,
        style=Markup(_asset("page.css")),
        library=library,
        scripts=[Markup(code) for code in codes],
        data=json_block(data),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        **values,
    )  # fmt: skip
    return html.encode("utf-8", errors="replace")


def json_block(content: object) -> Markup:
    """Return JSON for a script block: no `<` and nothing but ASCII, so that no text in it can end the block."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def packed_plotly() -> tuple[str, str]:
    """Return the plotting library (see vendor/README.md), packed, and its hash for the page's policy."""
    code = (resources.files("medix_verl.report") / "vendor" / "plotly-basic.min.js").read_text(encoding="utf-8")
    return pack_text(code), _policy_hash(code)


def _policy_hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (resources.files("medix_verl.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("medix_verl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
