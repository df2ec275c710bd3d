"""The hacking monitors held against the truth: which of them spoke in the runs of a study, and were they right?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from medix_verl.ablation.truth import Known, is_true
from medix_verl.report.monitors import FLAGGED, monitors
from medix_verl.report.rollouts import Group
from medix_verl.report.run_folder import RunFolder


@dataclass(frozen=True)
class Watched:
    """One monitor in the runs of one variant."""

    variant: str
    monitor: str
    """Its title; empty if no monitor spoke or flagged anything."""
    spoke: tuple[int, ...] = ()
    """The seeds in which it said that something is worth a look."""
    peaks: tuple[float, ...] = ()
    """For each seed the largest share of one step's training responses that it flagged; empty if it flags none."""
    flagged: int = 0
    """Validation responses, of all steps and seeds."""
    untrue: int = 0
    """Of the flagged ones."""
    falsely_paid: int = 0
    """Validation responses that judge or embedder paid though they are untrue."""
    caught: int = 0
    """Of those, the flagged ones."""


def watch(runs: Mapping[str, Mapping[int, RunFolder]], truth: Mapping[str, Known]) -> list[Watched]:
    """Return for each variant the monitors that spoke or flagged something, or one line that none did.

    Args:
        runs: variant -> seed -> its run.
        truth: of the validation samples.
    """
    found: list[Watched] = []
    for variant, seeds in runs.items():
        spoke: dict[str, list[int]] = defaultdict(list)
        for seed, run in seeds.items():
            for chart in monitors(run):
                if chart.level in ("watch", "alert"):
                    spoke[chart.title].append(seed)
        titles = {title for title, _ in FLAGGED.values()}
        lines = [_flagged(variant, name, seeds, truth, tuple(spoke[title])) for name, (title, _) in FLAGGED.items()]
        lines += [Watched(variant, title, tuple(which)) for title, which in spoke.items() if title not in titles]
        found += [line for line in lines if line.spoke or line.flagged] or [Watched(variant, "")]
    return found


def _flagged(
    variant: str, name: str, seeds: Mapping[int, RunFolder], truth: Mapping[str, Known], spoke: tuple[int, ...]
) -> Watched:
    answered = [
        (name in group.flags(response), response.is_paid, is_true(response.answer, truth[group.sample_id]))
        for run in seeds.values()
        for group in run.validation_groups
        if group.sample_id in truth
        for response in group.responses
    ]
    return Watched(
        variant, FLAGGED[name][0], spoke, tuple(_peak(name, run.training_groups) for run in seeds.values()),
        flagged=sum(flag for flag, _, _ in answered),
        untrue=sum(flag and not true for flag, _, true in answered),
        falsely_paid=sum(paid and not true for _, paid, true in answered),
        caught=sum(flag and paid and not true for flag, paid, true in answered),
    )  # fmt: skip


def _peak(name: str, groups: Sequence[Group]) -> float:
    by_step: dict[int, list[bool]] = defaultdict(list)
    for group in groups:
        by_step[group.step] += [name in group.flags(response) for response in group.responses]
    return max(map(fmean, by_step.values()), default=0.0)


def as_markdown(table: Sequence[Watched]) -> str:
    """Return the table as Markdown, for the terminal and the documents."""
    lines = [
        "| variant | monitor | spoke in seeds | largest share of a step, by seed | flagged | of these untrue "
        "| of the falsely paid |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        peaks = ", ".join(f"{peak:.2f}" for peak in row.peaks)
        flags = [str(row.flagged), _share(row.untrue, row.flagged), _share(row.caught, row.falsely_paid)]
        seeds = ", ".join(map(str, row.spoke)) or "none"
        shown = [row.variant, row.monitor or "no monitor spoke", seeds, peaks, *(flags if row.peaks else ["", "", ""])]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "of none"
