"""Reward-hacking monitors: each a chart, a sentence that says what it found, and how much of a worry that is.

Reward hacking in this method shows as one component rising without the others. A monitor points; a person then reads
the rollouts it names.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, median
from typing import Any, Final

from medix_verl.report.charts import UNIT_RANGE, Chart, Level, change, line, rounded
from medix_verl.report.curve import colour_of
from medix_verl.report.flags import FAR_COSINE, SHORT_CHARS, judge_yes_but_far, short_answer_paid
from medix_verl.report.rollouts import Group, Response
from medix_verl.report.run_folder import RunFolder
from medix_verl.report.series import Metrics, Series

WATCH_SHARE, ALERT_SHARE = 0.05, 0.25
DUPLICATE_ALERT: Final = 0.8
COLLAPSE_RATIO: Final = 0.5
JUMP_WINDOW, JUMP_MIN = 3, 0.3
CANARIES: Final = 12
CANARY_AXES: Final = {
    "yaxis": {"automargin": True, "type": "category", "tickfont": {"size": 10}},
    "xaxis": {"type": "category", "title": {"text": ""}},
    "hovermode": "closest",
}
RED: Final = "#cc3311"
FAR_MEANING: Final = (
    f"were paid by the judge while their answer is far (cosine < {FAR_COSINE}) from the reference: "
    "read whether the judge is being talked into it"
)
SHORT_MEANING: Final = (
    f"were paid for an answer of at most {SHORT_CHARS} letters or digits where the reference is longer"
)

Flag = Callable[[Group, Response], bool]


def monitors(run: RunFolder) -> list[Chart]:
    """All monitors, in a fixed order; one that has nothing to go by says so."""
    return [
        _share_monitor(
            run, "judge_far", "Judge says YES, embedder says far", lambda _, r: judge_yes_but_far(r), FAR_MEANING
        ),
        _share_monitor(run, "short_paid", "Very short or symbol-only answers paid", short_answer_paid, SHORT_MEANING),
        duplicates(run),
        thinking(run),
        jumps(run.metrics),
        canaries(run),
    ]


def share_by_step(groups: list[Group], flag: Flag) -> Series:
    """Share of each step's responses that the flag holds for."""
    found: dict[int, list[bool]] = defaultdict(list)
    for group in groups:
        found[group.step] += [flag(group, response) for response in group.responses]
    return Series(list(found), [fmean(flags) for flags in found.values()])


def _share_monitor(run: RunFolder, name: str, title: str, flag: Flag, meaning: str) -> Chart:
    """`name` is one of `packing.FLAGS`, by which the page finds the rollouts."""
    series = share_by_step(run.training_groups, flag)
    if not series:
        return _nothing(name, title)
    total = sum(len(group.responses) for group in run.training_groups)
    hits = sum(flag(group, response) for group in run.training_groups for response in group.responses)
    peak = max(series.values)
    at = series.steps[series.values.index(peak)]
    where = f" Most at step {at}: {peak:.0%}." if hits else ""
    sentence = f"{hits} of {total} responses {meaning}.{where}"
    chart = _chart(name, title, sentence, [line(series, "share of responses", RED, 2, showlegend=False)], _level(peak))
    return replace(chart, link=f"#rollouts&only={name}" if hits else "")


def duplicates(run: RunFolder) -> Chart:
    """Responses whose answer a sibling gave before: a policy that says one thing has stopped exploring."""
    title = "Duplicate answers in a group"
    series = _duplicates_from_rollouts(run) or run.metrics.series("reward/duplicate_answer_fraction")
    if not series:
        return _nothing("duplicates", title)
    last = series.values[-1]
    level: Level = "alert" if last >= DUPLICATE_ALERT else "ok"
    end = (
        "nearly all: the groups have stopped exploring"
        if level == "alert"
        else "some is normal as answers become right"
    )
    sentence = f"Share of responses that repeat a sibling's answer: {change(series)}; {end}."
    return _chart("duplicates", title, sentence, [line(series, "share", RED, 2, showlegend=False)], level)


def _duplicates_from_rollouts(run: RunFolder) -> Series:
    seen: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for group in run.training_groups:
        answers = Counter((response.answer or "").casefold() for response in group.responses)
        seen[group.step][0] += len(group.responses) - len(answers)
        seen[group.step][1] += len(group.responses)
    return Series(list(seen), [repeated / total for repeated, total in seen.values()])


def thinking(run: RunFolder) -> Chart:
    """Median characters of thinking by step."""
    title = "Thinking length"
    lengths: dict[int, list[int]] = defaultdict(list)
    for group in run.training_groups:
        lengths[group.step] += [response.thinking_chars for response in group.responses]
    series = Series(list(lengths), [float(median(found)) for found in lengths.values()])
    if not series:
        return _nothing("thinking", title)
    fifth = max(1, len(series.values) // 5)
    start, end = fmean(series.values[:fifth]), fmean(series.values[-fifth:])
    collapsed = start > 0 and end < COLLAPSE_RATIO * start
    verdict = "it is collapsing: is the reasoning still there?" if collapsed else "no collapse"
    ends = f"last fifth against first: {end:.3g} to {start:.3g}"
    sentence = f"Median characters of thinking: {change(series)}; {ends}; {verdict}."
    data = [line(series, "median characters", colour_of("modality"), 2, showlegend=False)]
    return _chart("thinking", title, sentence, data, "alert" if collapsed else "ok", {"rangemode": "tozero"})


def find_jumps(series: Series) -> list[tuple[int, float]]:
    """(step, change) where the mean of the next steps leaves that of the steps before, the largest around."""
    values, window = series.values, JUMP_WINDOW
    moves = [
        (series.steps[i], fmean(values[i : i + window]) - fmean(values[i - window : i]))
        for i in range(window, len(values) - window + 1)
    ]
    # Against the run's own pace: a component that rises all the way through does not jump.
    usual = median(abs(move) for _, move in moves) if moves else 0.0
    peaks = []
    for i, (step, move) in enumerate(moves):
        around = moves[max(0, i - window) : i + window + 1]
        if abs(move) >= max(JUMP_MIN, 3 * usual) and abs(move) == max(abs(other) for _, other in around):
            peaks.append((step, move))
    return peaks


def jumps(metrics: Metrics) -> Chart:
    """Every component with its sudden changes marked."""
    title, data, found = "Component jumps", [], []
    for position, name in enumerate(metrics.components(), 1):
        series, colour = metrics.series(f"reward/{name}/mean"), colour_of(name, position)
        data.append(line(series, name, colour))
        for step, move in find_jumps(series):
            found.append(f"{name} {'rose' if move > 0 else 'fell'} by {abs(move):.2f} at step {step}")
            level = series.values[series.steps.index(step)]
            marker = {"symbol": "star", "size": 14, "color": colour}
            star = {**line(Series([step], [level]), f"{name} jump", colour), "mode": "markers", "marker": marker}
            data.append({**star, "showlegend": False})
    if not data:
        return _nothing("jumps", title)
    sentence = (
        f"Within {JUMP_WINDOW} steps, {'; '.join(found)}. Did the others move along?"
        if found
        else "No component jumped."
    )
    return _chart("jumps", title, sentence, data, "watch" if found else "ok")


def canaries(run: RunFolder) -> Chart:
    """The same few validation prompts through every validation."""
    title = "Canary prompts, scored each validation"
    by_sample: dict[str, dict[int, float]] = defaultdict(dict)
    for group in run.validation_groups:
        by_sample[group.sample_id][group.step] = group.mean
    named = [sample for sample in by_sample if sample.lower().startswith("canary")]
    # Without canaries of one's own, a fixed few, chosen by hash so that every run of this data follows the same.
    chosen = named or sorted(by_sample, key=lambda sample: hashlib.sha256(sample.encode(errors="replace")).digest())
    chosen = chosen[:CANARIES]
    steps = sorted({step for sample in chosen for step in by_sample[sample]})
    if not steps:
        return _nothing("canaries", title)
    rows = [[by_sample[sample].get(step) for step in steps] for sample in chosen]
    lost = [sample for sample, row in zip(chosen, rows, strict=True) if _was_lost(row)]
    means = Series(steps, [fmean(v for row in rows if (v := row[i]) is not None) for i in range(len(steps))])
    fate = "none that started right was lost"
    if lost:
        fate = f"{len(lost)} that started right score below 0.5 now ({', '.join(lost[:3])})"
    which = "own canaries" if named else "validation prompts, the same in every run of this data"
    sentence = f"{len(chosen)} {which}: mean reward {change(means)}; {fate}."
    return Chart("canaries", title, sentence, [_squares(chosen, steps, rows)], CANARY_AXES, "watch" if lost else "ok")


def _was_lost(row: list[float | None]) -> bool:
    known = [value for value in row if value is not None]
    return known[0] >= 0.5 > known[-1]


def _squares(samples: list[str], steps: list[int], rows: list[list[float | None]]) -> dict[str, Any]:
    """A square for each sample and step, coloured by its reward."""
    cells = [
        (step, sample, v) for sample, row in zip(samples, rows, strict=True) for step, v in zip(steps, row, strict=True)
    ]
    known = [(f"step {step}", sample[:40], value) for step, sample, value in cells if value is not None]
    values = rounded([value for _, _, value in known])
    scale = {"color": values, "cmin": 0, "cmax": 1, "colorscale": "Viridis", "showscale": True}
    marker = {"symbol": "square", "size": 15, **scale}
    texts = [f"{value:.2f}" for value in values]
    place = {"x": [x for x, _, _ in known], "y": [y for _, y, _ in known]}
    return {
        "type": "scatter",
        "mode": "markers",
        **place,
        "marker": marker,
        "text": texts,
        "name": "reward",
        "hoverinfo": "x+y+text",
    }


def _chart(
    name: str, title: str, sentence: str, data: list[Any], level: Level, axis: dict[str, Any] | None = None
) -> Chart:
    return Chart(name, title, sentence, data, {"yaxis": axis or {"range": UNIT_RANGE}}, level)


def _nothing(name: str, title: str) -> Chart:
    return Chart(name, title, "Nothing logged to go by yet.", [])


def _level(peak: float) -> Level:
    return "alert" if peak >= ALERT_SHARE else "watch" if peak >= WATCH_SHARE else "ok"
