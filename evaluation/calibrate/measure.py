"""Sensitivity, specificity and kappa of a judge, over all pairs and by kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from evaluation.calibrate.pairs import Pair
from evaluation.statistics.agreement import cohen_kappa
from evaluation.statistics.intervals import clustered_mean, within
from evaluation.summary import estimate_json

Judged = tuple[Pair, bool | None]
"""A pair and the judge's verdict; None where it gave none."""


def measure(judged: Iterable[Judged]) -> dict[str, Any]:
    """Figures over all pairs and for each kind. Pairs without a verdict are counted and left out."""
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    for pair, verdict in judged:
        by_kind[pair.kind].append((pair, verdict))
    everything = [entry for entries in by_kind.values() for entry in entries]
    return {
        "all": _figures(everything),
        "kinds": {kind: _figures(entries) for kind, entries in sorted(by_kind.items())},
    }


def _figures(entries: list[Judged]) -> dict[str, Any]:
    scored = [(pair, verdict) for pair, verdict in entries if verdict is not None]
    right = [(float(verdict), pair.group) for pair, verdict in scored if pair.right]
    wrong = [(float(not verdict), pair.group) for pair, verdict in scored if not pair.right]
    return {
        "pairs": len(entries),
        "unscored": len(entries) - len(scored),
        "positives": len(right),
        "true_yes": int(sum(value for value, _ in right)),
        "negatives": len(wrong),
        "true_no": int(sum(value for value, _ in wrong)),
        "sensitivity": _share(right),
        "specificity": _share(wrong),
        "agreement": _share([(float(verdict == pair.right), pair.group) for pair, verdict in scored]),
        "kappa": cohen_kappa([pair.right for pair, _ in scored], [bool(verdict) for _, verdict in scored]),
    }


def _share(entries: list[tuple[float, str]]) -> dict[str, Any]:
    return estimate_json(within(clustered_mean([value for value, _ in entries], [group for _, group in entries])))
