"""The charts of a run as plotly figures in plain data; the page draws them when they come into view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from medix_verl.report.curve import COLOURS, colour_of
from medix_verl.report.run_folder import RunFolder
from medix_verl.report.series import KNOWN_COMPONENTS, SCORE, Metrics, Series, is_component

INK: Final = "ink"
"""A colour that the page replaces: dark on a light page, light on a dark one."""
STAGES: Final = {
    "gen": "generation",
    "old_log_prob": "old log-probabilities",
    "ref": "reference log-probabilities",
    "adv": "advantages",
    "update_actor": "update",
    "update_weights": "weight sync",
    "testing": "validation",
    "save_checkpoint": "checkpoint",
}
STAGE_COLOURS: Final = ("#0072b2", "#56b4e9", "#44aa99", "#117733", "#d55e00", "#e69f00", "#aa4499", "#999933")
UNIT_RANGE: Final = [-0.03, 1.03]
Level = Literal["ok", "watch", "alert", "none"]


@dataclass
class Chart:
    """A figure and the sentence that says what it shows, which also is its text alternative."""

    id: str
    title: str
    sentence: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    level: Level = "none"
    """For monitors: whether there is something to look at."""
    link: str = ""
    """Leads to the rollouts that it is about."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def line(series: Series, name: str, colour: str, width: float = 1.6, **style: Any) -> dict[str, Any]:
    """A line trace; few points are marked, as a single one would not be seen."""
    mode = "lines+markers" if len(series.steps) < 25 else "lines"
    base = {"type": "scatter", "mode": mode, "name": name, "x": series.steps, "y": rounded(series.values)}
    return {**base, "line": {"color": colour, "width": width}, "marker": {"color": colour, "size": 4}, **style}


def marks(series: Series, name: str, colour: str, symbol: str) -> dict[str, Any]:
    """A trace of hollow marks, for validations."""
    marker = {"symbol": symbol, "size": 9, "color": colour}
    style = {"mode": "markers+lines", "marker": marker, "line": {"color": colour, "dash": "dot", "width": 1}}
    return {**line(series, name, colour), **style}


def band(mean: Series, std: Series, colour: str) -> list[dict[str, Any]]:
    """Mean +- one standard deviation of the step's responses, cut to [0, 1]; two traces, no legend."""
    if mean.steps != std.steps:
        return []
    low = [max(0.0, m - s) for m, s in zip(mean.values, std.values, strict=True)]
    high = [min(1.0, m + s) for m, s in zip(mean.values, std.values, strict=True)]
    hidden = {"showlegend": False, "hoverinfo": "skip", "line": {"width": 0}, "mode": "lines"}
    return [
        {**line(Series(mean.steps, low), "low", colour), **hidden},
        {
            **line(Series(mean.steps, high), "high", colour),
            **hidden,
            "fill": "tonexty",
            "fillcolor": colour,
            "soft": True,
        },
    ]


def rounded(values: Sequence[float]) -> list[float]:
    """Five significant digits: enough for a chart, and half the bytes."""
    return [float(f"{value:.5g}") for value in values]


def change(series: Series) -> str:
    """`0.21 at step 1, 0.75 at step 40`."""
    if not series:
        return "not logged"
    first, last = (
        f"{series.values[0]:.3g} at step {series.steps[0]}",
        f"{series.values[-1]:.3g} at step {series.steps[-1]}",
    )
    return first if len(series.steps) == 1 else f"{first}, {last}"


def main_chart(metrics: Metrics) -> Chart:
    """Reward with its spread, every component, and the validations: the chart that curve.png shows."""
    reward, spread = metrics.series(f"reward/{SCORE}/mean"), metrics.series(f"reward/{SCORE}/std")
    data = [*band(reward, spread, INK), line(reward, "reward", INK, 2.6)]
    suffix = _source_suffix(metrics)
    for position, name in enumerate(metrics.components(), 1):
        data.append(line(metrics.series(f"reward/{name}/mean"), name, colour_of(name, position)))
    for (source, value), series in metrics.validation().items():
        if value == "acc":
            data.append(marks(series, f"validation accuracy{suffix(source)}", COLOURS["llm_accuracy"], "diamond-open"))
        elif value == SCORE:
            data.append(marks(series, f"validation reward{suffix(source)}", INK, "circle-open"))
    sentence = f"Mean reward of a step's responses: {change(reward)}. The band is one standard deviation."
    return Chart("main", "Reward, its components and validation", sentence, data, {"yaxis": {"range": UNIT_RANGE}})


def component_charts(metrics: Metrics) -> list[Chart]:
    """One small chart a component, with its spread and the share of groups in which it does not differ."""
    charts = []
    for position, name in enumerate(metrics.components(), 1):
        mean, colour = metrics.series(f"reward/{name}/mean"), colour_of(name, position)
        data = [*band(mean, metrics.series(f"reward/{name}/std"), colour), line(mean, "mean", colour, 2)]
        flat = metrics.series(f"reward/{name}/zero_std_group_fraction")
        if flat:
            dotted = {"color": "#888888", "width": 1, "dash": "dot"}
            data.append({**line(flat, "share of groups without spread", "#888888"), "line": dotted})
        sentence = f"Mean: {change(mean)}."
        charts.append(Chart(f"component-{position}", name, sentence, data, {"yaxis": {"range": UNIT_RANGE}}))
    return charts


def validation_chart(run: RunFolder) -> Chart | None:
    """Accuracy and reward as veRL logged them, and each component over the rows to which it applies."""
    found = run.metrics.validation()
    if not found:
        return None
    applied = _validation_components(run)
    data, accuracies, suffix = [], [], _source_suffix(run.metrics)
    for position, ((source, value), series) in enumerate(found.items()):
        is_part = value not in ("acc", SCORE)
        if is_part and applied:
            continue
        label = {"acc": "accuracy", SCORE: "reward"}.get(value, value)
        trace = line(series, f"{label}{suffix(source)}", colour_of(value, position) if is_part else INK)
        width, dash = (2.6 if value == "acc" else 1.6), ("dash" if value == SCORE else "solid")
        data.append({**trace, "mode": "lines+markers", "line": {**trace["line"], "width": width, "dash": dash}})
        if value == "acc":
            accuracies.append(f"{source}: {change(series)}")
    data += [
        {**line(s, name, colour_of(name, i)), "mode": "lines+markers"} for i, (name, s) in enumerate(applied.items())
    ]
    sentence = f"Accuracy on held-out prompts, {'; '.join(accuracies)}." if accuracies else "Held-out prompts."
    return Chart("validation", "Validation", sentence, data, {"yaxis": {"range": UNIT_RANGE}})


def _validation_components(run: RunFolder) -> dict[str, Series]:
    """Component -> mean by step over the validation rows to which it applies, from the rollouts."""
    names = {name for group in run.validation_groups for name in group.responses[0].scores if is_component(name)}
    found: dict[str, Series] = {}
    for name in [*(n for n in KNOWN_COMPONENTS if n in names), *sorted(names - set(KNOWN_COMPONENTS))]:
        values: dict[int, list[float]] = {}
        for group in run.validation_groups:
            values.setdefault(group.step, []).extend(v for r in group.responses if (v := r.value(name)) is not None)
        points = {step: sum(known) / len(known) for step, known in values.items() if known}
        if points:
            found[name] = Series(list(points), list(points.values()))
    return found


def _source_suffix(metrics: Metrics) -> Callable[[str], str]:
    """Names the data source in a legend, where there are several."""
    is_one = len({source for source, _ in metrics.validation()}) == 1
    return lambda source: "" if is_one else f", {source}"


def engine_charts(run: RunFolder) -> list[Chart]:
    """How the optimisation does: lengths, entropy, KL, Pearson, gradient, time; those that were logged."""
    simple: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
        ("length", "Response length", "response_length/mean", "Mean tokens of a response", {}),
        ("entropy", "Entropy", "actor/entropy", "Mean entropy of the policy's next token", {}),
        ("kl", "KL of the update", "actor/ppo_kl", "Old to new policy within a step", {}),
        ("ref-kl", "KL to the reference", "actor/kl_loss", "Policy to reference model", {}),
        (
            "pearson", "Rollout and actor agree", "training/rollout_actor_probs_pearson_corr",
            "Correlation of their token probabilities; 1 is the same model", {},
        ),
        ("grad", "Gradient norm", "actor/grad_norm", "Before clipping", {"rangemode": "tozero"}),
        (
            "flat-groups", "Groups without spread", f"reward/{SCORE}/zero_std_group_fraction",
            "Share of groups whose responses all got one reward, and so teach nothing", {"range": UNIT_RANGE},
        ),
    )  # fmt: skip
    charts = []
    for name, title, key, meaning, axis in simple:
        series = run.metrics.series(key)
        if series:
            data = [line(series, title, COLOURS["llm_accuracy"], 2, showlegend=False)]
            if name == "pearson":
                axis = {"range": [min(0.99, *series.values) - 0.0005, 1.0005], "tickformat": ".4"}
            charts.append(Chart(name, title, f"{meaning}: {change(series)}.", data, {"yaxis": axis}))
    return [chart for chart in (*charts, judge_chart(run), time_chart(run.metrics)) if chart]


def judge_chart(run: RunFolder) -> Chart | None:
    """Latency of the judge, and how often it had to be asked again or gave no verdict."""
    median, slow = (run.metrics.series(f"reward/judge_seconds/{rank}") for rank in ("p50", "p95"))
    retries = judge_retries(run)
    if not median and not retries:
        return None
    failed = _failed_share(run.metrics)
    data = [
        line(median, "median seconds", COLOURS["llm_accuracy"]),
        line(slow, "95th percentile, seconds", COLOURS["embed_accuracy"]),
        line(retries, "share asked more than once", "#aa4499", yaxis="y2"),
        line(failed, "share without a verdict", "#cc3311", 2.4, yaxis="y2"),
    ]
    second = {"overlaying": "y", "side": "right", "range": [0, 1], "tickformat": ".0%", "showgrid": False}
    sentence = (
        f"Verdicts that failed: {_share(failed)}; asked more than once: {_share(retries)}. "
        f"Median seconds a verdict: {change(median)}. A judge's failure is never scored."
    )
    layout = {"yaxis": {"title": {"text": "seconds"}, "rangemode": "tozero"}, "yaxis2": second}
    return Chart("judge", "Judge: failures and latency", sentence, data, layout)


def judge_retries(run: RunFolder) -> Series:
    """Share of the step's judged responses whose verdict took more than one call."""
    asked: dict[int, list[bool]] = {}
    for group in run.training_groups:
        for response in group.responses:
            if response.verdict is not None:
                asked.setdefault(group.step, []).append(response.attempts > 1)
    return Series(list(asked), [sum(again) / len(again) for again in asked.values()])


def time_chart(metrics: Metrics) -> Chart | None:
    """Seconds a step, stacked by stage; what no stage accounts for is `other`."""
    total = metrics.series("timing_s/step")
    if not total:
        return None
    stages = {label: metrics.series(f"timing_s/{key}") for key, label in STAGES.items()}
    rest = dict(zip(total.steps, total.values, strict=True))
    for series in stages.values():
        for step, seconds in zip(series.steps, series.values, strict=True):
            rest[step] = max(0.0, rest.get(step, 0.0) - seconds)
    stages["other"] = Series(list(rest), list(rest.values()))
    data = [
        {"type": "bar", "name": label, "x": series.steps, "y": rounded(series.values), "marker": {"color": colour}}
        for (label, series), colour in zip(stages.items(), (*STAGE_COLOURS, "#999999"), strict=True)
        if series
    ]
    median = sorted(total.values)[len(total.values) // 2]
    layout = {"barmode": "stack", "bargap": 0.08, "yaxis": {"title": {"text": "seconds"}}}
    return Chart("time", "Seconds a step, by stage", f"Median step: {median:.3g} s.", data, layout)


def _failed_share(metrics: Metrics) -> Series:
    ok = metrics.series("reward/llm_accuracy_ok/mean")
    return Series(ok.steps, [1.0 - value for value in ok.values])


def _share(series: Series) -> str:
    return f"{sum(series.values) / len(series.values):.1%} over all steps" if series else "not logged"
