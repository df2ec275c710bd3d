"""The page of one run: everything in one HTML file, no network, nothing executed but our own scripts.

The rollouts are an outline of all groups, and their texts, packed a step at a time: the browser unpacks a step when one
of its groups is looked at, so that the page opens at once.
"""

from __future__ import annotations

import base64
import gzip
import json
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
from medix_verl.report.rollouts import ADVANTAGE_EPSILON, Group
from medix_verl.report.run_folder import RunFolder, divide_by_std, load_run
from medix_verl.report.settings import flatten, what_ran
from medix_verl.report.thumbnails import thumbnails

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_PACKED_BYTES: Final = 22_000_000
"""Of all packed texts and thumbnails, as they stand in the page: with the rest it stays under 25 MB."""


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
        links=[(path, name) for path, name in links(run, data) if path != "report.html"],
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
    return pack(_text("../vendor/plotly-basic.min.js"))


def pack_rollouts(run: RunFolder, images: dict[str, list[str]]) -> tuple[str, dict[int, str]]:
    """Pack what the rollout browser needs; if there are too many texts, an even choice of steps keeps them.

    Returns:
        The packed index of all groups, and step -> packed {key of a group: [response, ...]}.
    """
    by_step: dict[int, list[Group]] = {}
    for group in run.groups:
        by_step.setdefault(group.step, []).append(group)
    chunks = {}
    spent = sum(len(uri) for uris in images.values() for uri in uris)
    for step in spread_out(list(by_step)):
        packed = pack({group.key: [asdict(response) for response in group.responses] for group in by_step[step]})
        if spent + len(packed) <= MAX_PACKED_BYTES:
            chunks[step] = packed
            spent += len(packed)
    if len(chunks) < len(by_step):
        run.notes.append(
            f"the texts of {len(chunks)} out of {len(by_step)} steps are in this page, to keep it small; "
            "all are in rollouts/scored.jsonl"
        )
    return pack([_outline(group, group.step in chunks) for group in run.groups]), dict(sorted(chunks.items()))


def pack(content: object) -> str:
    """Return base64 of gzipped text or JSON, which the browser unpacks; the same content always gives the same."""
    text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def spread_out(steps: list[int]) -> list[int]:
    """Return the steps in an order whose every beginning is spread over the run: last, first, middle, quarters ..."""
    order = dict.fromkeys([*steps[-1:], *steps[:1]])
    parts = 2
    while len(order) < len(steps):
        order |= dict.fromkeys(steps[len(steps) * i // parts] for i in range(1, parts))
        parts *= 2
    return list(order)


def _outline(group: Group, is_kept: bool) -> dict[str, Any]:
    """Return what the list of groups shows and is filtered by."""
    flags = sorted(set().union(*(group.flags(response) for response in group.responses)))
    return {
        "key": group.key,
        "step": group.step,
        "training": group.is_training,
        "id": group.sample_id,
        "question": group.question,
        "reference": group.reference,
        "modality": group.modality,
        "size": len(group.responses),
        "mean": round(group.mean, 4),
        "std": round(group.std, 4),
        "flags": [*flags, *(["no_spread"] if group.no_spread else [])],
        "kept": is_kept,
    }
