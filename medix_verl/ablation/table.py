"""The figures of a study: by variant and kind of question, what was paid, what was true, and their difference."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from evaluation.statistics import PairedComparison, compare_paired
from medix.errors import DataError
from medix_verl.ablation.truth import TRAIN_AGAIN, Finding

ALL = "all"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % interval (Student's t over the seeds); no interval for a single seed."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def over_seeds(values: Sequence[float]) -> Mean:
    """Return the mean of one value a seed.

    Example:
        >>> str(over_seeds([0.8, 0.9]))  # standard error 0.05, t with one degree of freedom 12.71
        '0.850 (0.215 to 1.485)'
    """
    mean = fmean(values)
    if len(values) < 2:
        return Mean(mean)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Mean(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Row:
    """One variant and one kind of question (or all of them), at the last validation."""

    variant: str
    kind: str
    samples: int
    paid: Mean
    true: Mean
    gap: Mean
    """Paid minus true: what the reward pays for that is not so."""
    falsely_paid: Mapping[str, Mean] = field(default_factory=dict)
    """By accuracy component: share of all responses that it paid (at least one half) though they were not true."""
    falsely_refused: Mapping[str, Mean] = field(default_factory=dict)
    """By accuracy component: share of all responses that it did not pay though they were true."""


Results = Mapping[str, Mapping[int, Sequence[Finding]]]
"""Variant -> seed -> its validation responses, of all steps."""


def last_step(results: Results) -> int:
    """Return the last step that every run has validated at."""
    steps = [{finding.step for finding in found} for seeds in results.values() for found in seeds.values()]
    shared = set.intersection(*steps) if steps else set()
    return max(shared, default=0)


def check_whole(results: Results, step: int) -> None:
    """Check that every run was validated at a step, on every sample that another run answered there.

    Raises:
        DataError: a run lacks responses, so that its figures would be of another step or other samples than the rest.
    """
    answered = {
        f"{variant}, seed {seed}": {finding.sample_id for finding in found if finding.step == step}
        for variant, seeds in results.items()
        for seed, found in seeds.items()
    }
    asked = set().union(*answered.values())
    if not asked:
        raise DataError(
            f"No run was validated at step {step}.", "Set trainer.test_freq in the study's overrides, and train again."
        )
    for name, samples in answered.items():
        if lacking := asked - samples:
            raise DataError(
                f"{name}: {len(lacking)} of {len(asked)} samples have no response at step {step}, "
                f"e.g. {min(lacking)!r}.",
                TRAIN_AGAIN,
            )


def rows(results: Results) -> list[Row]:
    """Return the table: for each variant all questions first, then each kind."""
    step, table = last_step(results), []
    kinds = sorted({finding.kind for seeds in results.values() for found in seeds.values() for finding in found})
    for variant, seeds in results.items():
        for kind in (ALL, *kinds):
            by_seed = [
                [finding for finding in found if finding.step == step and kind in (ALL, finding.kind)]
                for found in seeds.values()
            ]
            if all(by_seed) and by_seed:
                table.append(_row(variant, kind, by_seed))
    return table


def _row(variant: str, kind: str, by_seed: Sequence[Sequence[Finding]]) -> Row:
    names = sorted({name for found in by_seed for finding in found for name in finding.components})

    def share(test: str, name: str) -> Mean:
        return over_seeds([fmean(_is(test, finding, name) for finding in found) for found in by_seed])

    paid = [fmean(finding.paid for finding in found) for found in by_seed]
    true = [fmean(finding.true for finding in found) for found in by_seed]
    return Row(
        variant, kind, len(by_seed[0]),
        over_seeds(paid), over_seeds(true), over_seeds([p - t for p, t in zip(paid, true, strict=True)]),
        {name: share("falsely paid", name) for name in names},
        {name: share("falsely refused", name) for name in names},
    )  # fmt: skip


def _is(test: str, finding: Finding, component: str) -> bool:
    paid = finding.components.get(component, 0.0) >= 0.5
    return paid and not finding.true if test == "falsely paid" else finding.true and not paid


def curves(results: Results, what: str) -> dict[str, list[tuple[int, list[float]]]]:
    """Return for each variant (step, one mean a seed) of `paid` or `true`, in order of steps."""
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for variant, seeds in results.items():
        by_step: dict[int, list[float]] = defaultdict(list)
        for responses in seeds.values():
            for step in {finding.step for finding in responses}:
                by_step[step].append(fmean(float(getattr(f, what)) for f in responses if f.step == step))
        found[variant] = sorted(by_step.items())
    return found


def against(results: Results, baseline: str) -> dict[str, PairedComparison]:
    """Return each variant's truth minus the baseline's, on the same samples and seeds at the last step.

    The samples are the clusters: the answers of several seeds to one sample are not independent.
    """
    step = last_step(results)
    truths = {
        variant: {(s, f.sample_id): float(f.true) for s, found in seeds.items() for f in found if f.step == step}
        for variant, seeds in results.items()
    }
    compared = {}
    for variant, truth in truths.items():
        shared = sorted(truth.keys() & truths[baseline].keys())
        if variant != baseline and shared:
            first, second = [truths[baseline][key] for key in shared], [truth[key] for key in shared]
            compared[variant] = compare_paired(first, second, [sample for _, sample in shared])
    return compared


def as_csv(table: Sequence[Row]) -> str:
    """Return the table as CSV: one line a variant, kind and figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("variant", "kind", "samples", "figure", "mean", "low", "high"))
    for row in table:
        figures = {"paid": row.paid, "true": row.true, "gap": row.gap}
        figures |= {f"falsely paid by {name}": mean for name, mean in row.falsely_paid.items()}
        figures |= {f"falsely refused by {name}": mean for name, mean in row.falsely_refused.items()}
        for name, mean in figures.items():
            writer.writerow((row.variant, row.kind, row.samples, name, mean.value, mean.low, mean.high))
    return out.getvalue()


def as_markdown(table: Sequence[Row], compared: Mapping[str, PairedComparison], baseline: str) -> str:
    """Return the figures over all questions as a Markdown table, for the terminal and the documents."""
    lines = [
        "| variant | paid | true | gap | falsely paid | falsely refused | true, against the baseline |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        if row.kind == ALL:
            paid = ", ".join(f"{_short(name)} {mean.value:.3f}" for name, mean in row.falsely_paid.items())
            refused = ", ".join(f"{_short(name)} {mean.value:.3f}" for name, mean in row.falsely_refused.items())
            lines.append(
                f"| {row.variant} | {row.paid} | {row.true} | {row.gap} | {paid} | {refused} "
                f"| {_difference(row.variant, compared, baseline)} |"
            )
    return "\n".join(lines)


def _short(name: str) -> str:
    return name.removesuffix("_accuracy")


def _difference(variant: str, compared: Mapping[str, PairedComparison], baseline: str) -> str:
    if variant == baseline:
        return "(baseline)"
    found = compared.get(variant)
    if found is None or found.difference.mean is None:
        return "not comparable"
    p = "" if found.p_value is None else f", p = {found.p_value:.3f}"
    return f"{found.difference.mean:+.3f}{p}"
