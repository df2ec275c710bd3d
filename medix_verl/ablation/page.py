"""A study on one page: the curves, the table, and for each variant the answers it was paid most for though untrue."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medix.pages import environment
from medix_verl.ablation.study import Study
from medix_verl.ablation.table import Results, Row, curves, last_step
from medix_verl.ablation.truth import Finding
from medix_verl.ablation.watched import Watched

MOST_PAID = 3


def draw_curves(results: Results, path: Path) -> None:
    """Draw one panel a variant: what was paid and what was true by training step, with a band from seed to seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(results))
    rows = math.ceil(len(results) / columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 3.0 * rows), sharex=True, sharey=True, squeeze=False
    )
    by_name = {what: curves(results, what) for what in ("paid", "true")}
    for panel, variant in zip(axes.flat, results, strict=False):
        for what, colour, style in (("paid", "#cc3311", "-"), ("true", "#0077bb", "--")):
            points = by_name[what][variant]
            steps = [step for step, _ in points]
            panel.plot(steps, [sum(v) / len(v) for _, v in points], style, color=colour, label=what, linewidth=2)
            panel.fill_between(steps, [min(v) for _, v in points], [max(v) for _, v in points], color=colour, alpha=0.2)
        panel.set_title(variant, fontsize=10)
        panel.set_ylim(0, 1.02)
        panel.grid(alpha=0.3)
    for panel in list(axes.flat)[len(results) :]:
        panel.set_axis_off()
    axes[0][0].legend(loc="lower right")
    figure.supxlabel("training step")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def most_paid(seeds: Mapping[int, Sequence[Finding]]) -> list[Finding]:
    """Return a variant's untrue answers that earned most at its last step, one for each (question, answer)."""
    found = [finding for responses in seeds.values() for finding in responses]
    last = max((finding.step for finding in found), default=0)
    untrue = [finding for finding in found if finding.step == last and not finding.true and finding.paid > 0]
    distinct = {(f.question, f.candidate): f for f in sorted(untrue, key=lambda f: (f.paid, f.score))}
    return sorted(distinct.values(), key=lambda f: (-f.paid, -f.score, f.sample_id))[:MOST_PAID]


def render_page(
    study: Study,
    results: Results,
    table: Sequence[Row],
    compared: Mapping[str, Any],
    watched: Sequence[Watched],
    failed: Mapping[str, str],
    notes: Sequence[str],
    pictures: Mapping[str, Sequence[str]],
    curve: Path,
) -> str:
    """Return the page as HTML that asks nothing of the network.

    Args:
        watched: the hacking monitors against the truth.
        failed: for each run that failed, the last lines of its log.
        notes: what could not be read.
        pictures: sample id -> data URIs.
        curve: the PNG of `draw_curves`.
    """
    examples = {
        variant: [(finding, next(iter(pictures.get(finding.sample_id, ())), "")) for finding in most_paid(seeds)]
        for variant, seeds in results.items()
    }
    template = environment(Path(__file__).parent).get_template("page.html.j2")
    return template.render(
        study=study, table=table, compared=compared, watched=watched, failed=failed, notes=notes, examples=examples,
        step=last_step(results), baseline=study.baseline or next(iter(study.variants)),
        curve=base64.b64encode(curve.read_bytes()).decode(),
    )  # fmt: skip
