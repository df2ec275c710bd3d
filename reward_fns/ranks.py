"""Compare two rewards on the same groups of responses: what group-based RL sees is ranks and advantages, not scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import StatisticsError, correlation, fmean, pstdev


def compare(scored: Iterable[tuple[str, float, float]]) -> str:
    """Return a table of how ranks and advantages change from a run's reward to another.

    Args:
        scored: (group, score of the run, score under this reward) for each response.

    Returns:
        Lines of text. The advantage is GRPO's: (score - mean of the group) / standard deviation of the group.
    """
    by_group: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for group, before, after in scored:
        by_group[group].append((before, after))
    groups = list(by_group.values())
    runs, here = zip(*(pair for group in groups for pair in group), strict=True)
    columns = [zip(*group, strict=True) for group in groups]
    advantages = [pair for sides in columns for pair in zip(*map(_advantages, sides), strict=True)]
    orders = [(_sign(a[0] - b[0]), _sign(a[1] - b[1])) for group in groups for a, b in combinations(group, 2)]
    spread = [str(sum(len({pair[side] for pair in group}) > 1 for group in groups)) for side in (0, 1)]
    try:
        together = f"{correlation(*zip(*advantages, strict=True)):.3f}"
    except StatisticsError:
        together = "none: all advantages of one reward are 0"
    counts = {
        "pairs of a group in another order": [a * b < 0 for a, b in orders],
        "pairs that were equal and are not": [not a and b != 0 for a, b in orders],
        "pairs that are equal and were not": [a != 0 and not b for a, b in orders],
        "groups with another best response": [*map(_best_changed, groups)],
        "advantages that change their sign": [a * b < 0 for a, b in advantages],
    }
    return "\n".join([
        f"{len(runs)} responses in {len(groups)} groups: the run's reward and this one",
        f"{'':24}{'run':>12}{'this reward':>14}",
        f"{'mean score':24}{fmean(runs):12.4f}{fmean(here):14.4f}",
        f"{'groups with spread':24}{spread[0]:>12}{spread[1]:>14}",
        *(
            f"{label:38}{sum(found)} of {len(found)}" + (f" ({100 * fmean(found):.1f} %)" if found else "")
            for label, found in counts.items()
        ),
        f"{'correlation of the advantages':38}{together}",
    ])  # fmt: skip


def _advantages(scores: Sequence[float]) -> list[float]:
    """Return each score's distance from the mean in standard deviations; 0 for all if there is no spread."""
    mean = fmean(scores)
    spread = pstdev(scores)
    return [(value - mean) / spread if spread > 1e-9 else 0.0 for value in scores]


def _best_changed(group: list[tuple[float, float]]) -> bool:
    """Return whether no response that was the best of its group still is."""
    best = [max(side) for side in zip(*group, strict=True)]
    return not any(before == best[0] and after == best[1] for before, after in group)


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)
