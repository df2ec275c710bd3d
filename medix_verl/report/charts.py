"""The charts of a run as plotly traces in plain data. The page draws them; `curve` draws the main one as a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from medix_verl.report.run_folder import SCORE, Metrics, RunFolder, Series, in_order, is_component

INK: Final = "ink"
"""A colour that the page replaces: dark on a light page, light on a dark one."""
COLOURS: Final = {"llm_accuracy": "#0072b2", "embed_accuracy": "#d55e00", "modality": "#009e73", "format": "#aa4499"}
"""Okabe and Ito's set, which colour-blind readers can tell apart."""
OTHER_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#b8860b", "#56b4e9", "#882255", "#44aa99", "#999933")
SHARE_AXIS: Final = {"yaxis": {"range": [-0.03, 1.03]}}
ENGINE: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    ("Response length", "Mean tokens of a response", {"response_length/mean": "tokens"}),
    ("Entropy", "How undecided the policy is about the next token", {"actor/entropy": "entropy"}),
    ("KL of the update", "How far the policy moves within a step", {"actor/ppo_kl": "KL"}),
    ("KL to the reference", "How far the policy is from the model it began as", {"actor/kl_loss": "KL"}),
    ("Rollout and actor agree", "Correlation of vLLM's token probabilities and the trained model's; 1 is equal",
     {"training/rollout_actor_probs_pearson_corr": "Pearson"}),
    ("Gradient norm", "Before clipping", {"actor/grad_norm": "norm"}),
    ("Groups without spread", "Share of groups whose responses all got one reward, and so teach nothing",
     {f"reward/{SCORE}/zero_std_group_fraction": "share"}),
    ("Judge failures", "Share of the judge's calls that failed; they are repeated, never scored",
     {"reward/judge_failure_rate": "share"}),
    ("Judge latency", "Seconds of a verdict",
     {"reward/judge_seconds/p50": "median", "reward/judge_seconds/p95": "95th percentile"}),
    ("Seconds a step, by stage", "Stages of a step, stacked; the step as a whole in black", {
        "timing_s/step": "step", "timing_s/gen": "generation", "timing_s/old_log_prob": "old log-probabilities",
        "timing_s/ref": "reference log-probabilities", "timing_s/update_actor": "update",
        "timing_s/update_weights": "weight sync", "timing_s/testing": "validation",
        "timing_s/save_checkpoint": "checkpoint",
    }),
)  # fmt: skip
"""Title, what it means, and metric -> name in the legend."""
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


def colour_of(name: str, position: int = 0) -> str:
    """Return a component's colour; `position` among the run's components decides for components of one's own."""
    return COLOURS.get(name) or OTHER_COLOURS[(position + 3) % len(OTHER_COLOURS)]


def line(
    series: Series, name: str, colour: str, width: float = 1.6, dash: str = "solid", **style: Any
) -> dict[str, Any]:
    """Return a line trace; few points are marked, as a single one would not be seen."""
    mode = "lines+markers" if len(series.steps) < 25 else "lines"
    # Five significant digits are enough for a chart, and half the bytes.
    points = {"x": series.steps, "y": [float(f"{value:.5g}") for value in series.values]}
    stroke = {"line": {"color": colour, "width": width, "dash": dash}, "marker": {"color": colour, "size": 4}}
    return {"type": "scatter", "mode": mode, "name": name, **points, **stroke, **style}


def band(mean: Series, std: Series, colour: str) -> list[dict[str, Any]]:
    """Return the two edges of mean +- one standard deviation, cut to [0, 1]; the space between them is filled."""
    if mean.steps != std.steps:
        return []
    pairs = list(zip(mean.values, std.values, strict=True))
    hidden: dict[str, Any] = {"showlegend": False, "hoverinfo": "skip", "mode": "lines"}
    low, high = [max(0.0, m - s) for m, s in pairs], [min(1.0, m + s) for m, s in pairs]
    filled: dict[str, Any] = {**hidden, "fill": "tonexty", "fillcolor": colour}
    return [
        line(Series(mean.steps, low), "low", colour, 0, **hidden),
        line(Series(mean.steps, high), "high", colour, 0, **filled),
    ]


def component_line(series: Series, name: str, position: int) -> dict[str, Any]:
    """Return a component's line. The two accuracies are often equal: the dashes of one leave the other to be seen."""
    return line(series, name, colour_of(name, position), dash="dash" if name == "embed_accuracy" else "solid")


def change(series: Series) -> str:
    """Return `0.21 at step 1, 0.75 at step 40`."""
    if not series:
        return "not logged"
    ends = [f"{series.values[i]:.3g} at step {series.steps[i]}" for i in (0, -1)]
    return ends[0] if len(series.steps) == 1 else ", ".join(ends)


def main_chart(metrics: Metrics) -> Chart:
    """Return the reward with its spread, every component, and the validations: the chart that curve.png shows too."""
    reward = metrics.series(f"reward/{SCORE}/mean")
    data = [*band(reward, metrics.series(f"reward/{SCORE}/std"), INK), line(reward, "reward", INK, 2.6)]
    for position, name in enumerate(metrics.components()):
        data.append(component_line(metrics.series(f"reward/{name}/mean"), name, position))
    for (source, value), series in metrics.validation().items():
        label = f"validation {'accuracy' if value == 'acc' else 'reward'}, {source}"
        symbol, colour = ("diamond-open", COLOURS["llm_accuracy"]) if value == "acc" else ("circle-open", INK)
        marker = {"symbol": symbol, "size": 9, "color": colour}
        data.append(line(series, label, colour, 1, "dot", mode="markers+lines", marker=marker))
    sentence = f"Mean reward of a step's responses: {change(reward)}. The band is one standard deviation."
    return Chart("main", "Reward, its components and validation", sentence, data, SHARE_AXIS)


def component_charts(metrics: Metrics) -> list[Chart]:
    """Return a small chart for each component: its spread, and the share of groups in which it does not differ."""
    charts = []
    for position, name in enumerate(metrics.components()):
        mean, colour = metrics.series(f"reward/{name}/mean"), colour_of(name, position)
        data = [*band(mean, metrics.series(f"reward/{name}/std"), colour), line(mean, "mean", colour, 2)]
        if flat := metrics.series(f"reward/{name}/zero_std_group_fraction"):
            data.append(line(flat, "groups whose responses all got the same", "#888888", 1, "dot"))
        charts.append(Chart(f"component-{position}", name, f"Mean: {change(mean)}.", data, SHARE_AXIS))
    return charts


def validation_chart(run: RunFolder) -> list[Chart]:
    """Return every figure of the held-out prompts, each over the responses to which it applies.

    veRL averages a component over all rows, those where it does not apply (-1) too; so it is averaged here.
    """
    groups = run.validation_groups
    names = ["acc", SCORE, *in_order(n for g in groups for n in g.responses[0].scores if is_component(n))]
    means = {name: run.held_out(name) for name in names}
    data = [line(means["acc"], "accuracy", INK, 2.6), line(means[SCORE], "reward", INK, dash="dash")]
    data += [component_line(means[name], name, position) for position, name in enumerate(names[2:])]
    sentence = f"Accuracy on held-out prompts: {change(means['acc'])}."
    return [Chart("validation", "Validation", sentence, data, SHARE_AXIS)] if groups else []


def engine_charts(metrics: Metrics) -> list[Chart]:
    """Return how the optimisation does: lengths, entropy, KL, Pearson, gradient, judge, time, if they were logged."""
    charts = []
    for number, (title, meaning, names) in enumerate(ENGINE):
        found = {name: series for key, name in names.items() if (series := metrics.series(key))}
        data = [
            line(series, name, OTHER_COLOURS[i % 8], 2, showlegend=len(names) > 1)
            for i, (name, series) in enumerate(found.items())
        ]
        layout: dict[str, Any] = SHARE_AXIS if "share" in found else {"yaxis": {"rangemode": "tozero"}}
        if "Pearson" in found:
            layout = {"yaxis": {"tickformat": ".4", "range": [min(0.99, *found["Pearson"].values) - 0.0005, 1.0005]}}
        if "step" in found:
            stacked = [{**trace, "type": "bar"} for trace in data if trace["name"] != "step"]
            data = [*stacked, line(found["step"], "step", INK, 1)]
            layout = {"barmode": "stack", "bargap": 0.08, "yaxis": {"title": {"text": "seconds"}}}
        if found:
            charts.append(
                Chart(f"engine-{number}", title, f"{meaning}: {change(next(iter(found.values())))}.", data, layout)
            )
    return charts
