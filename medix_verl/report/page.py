"""The page of one run: everything in one HTML file, no network, nothing executed but our own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medix_verl.report.charts import component_charts, engine_charts, main_chart, validation_chart
from medix_verl.report.health import status, tiles
from medix_verl.report.monitors import monitors
from medix_verl.report.packing import pack_rollouts, pack_text
from medix_verl.report.rollouts import ADVANTAGE_EPSILON
from medix_verl.report.run_folder import RunFolder, load_run, lookup
from medix_verl.report.settings import flatten, what_ran
from medix_verl.report.thumbnails import thumbnails

SCRIPTS: Final = ("text.js", "rollouts.js", "charts.js")


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the run folder and return its path. Never fails for what the run's files hold."""
    path = run_dir / "report.html"
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(render_run(load_run(run_dir)))
    os.replace(partial, path)
    return path


def render_run(run: RunFolder, live_state: str = "") -> bytes:
    """The page, UTF-8.

    Args:
        live_state: the state of the inputs that it was made of, where it is served and has to follow a live run.
    """
    images = thumbnails(run)
    packed = pack_rollouts(run, images)
    charts = [main_chart(run.metrics), *component_charts(run.metrics)]
    check = validation_chart(run)
    engine = [*([check] if check else []), *engine_charts(run)]
    watched = monitors(run)
    return render(
        "run.html.j2",
        {"charts": [chart.as_json() for chart in (*charts, *engine, *watched)]},
        SCRIPTS + (("live.js",) if live_state else ()),
        run=run,
        status=status(run),
        tiles=tiles(run),
        what_ran=what_ran(run),
        main=charts[0],
        components=charts[1:],
        engine=engine,
        monitors=watched,
        packed=packed,
        images=json_block(images),
        settings=flatten(run.config),
        summary=flatten(run.summary),
        live_state=live_state,
        divided=lookup(run.config, "algorithm.norm_adv_by_std_in_grpo") is not False,
        epsilon=ADVANTAGE_EPSILON,
    )


def render(template: str, data: dict[str, Any], scripts: tuple[str, ...], **values: Any) -> bytes:
    """A template with plotly, our scripts and the charts' data in it, under a policy that allows just these scripts."""
    codes = [_asset(name) for name in scripts]
    library, library_hash = packed_plotly()
    hashes = " ".join([library_hash, *map(_policy_hash, codes)])
    connect = "'self'" if values.get("live_state") else "'none'"
    # Plotly writes style rules; images are data URIs, and the PNG that a reader saves is a blob.
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
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
    """JSON for a script block: no `<` and nothing but ASCII, so that no text in it can end the block."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def packed_plotly() -> tuple[str, str]:
    """The plotting library (see vendor/README.md), packed, and its hash for the page's policy."""
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
