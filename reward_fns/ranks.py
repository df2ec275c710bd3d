"""Compare two rewards on the same groups of responses: what group-based RL sees is ranks and advantages, not scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from statistics import StatisticsError, correlation, fmean, pstdev


def compare(scored: Iterable[tuple[str, float, float]]) -> str:
    """Return a table of how ranks and advantages change from a run's reward to another.

    Args:
        scored: (group, score of the run, score under this reward) for each response.

    Returns:
        Lines of text. The advantage is GRPO's: (score - mean of the group) / standard deviation of the group.
    """
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for group, before, after in scored:
        groups[group].append((before, after))
    pairs = [pair for group in groups.values() for pair in group]
    runs, here = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    advantages = [
        pair for group in groups.values() for pair in zip(*map(advantages_of, zip(*group, strict=True)), strict=True)
    ]
    orders = [(_sign(a[0] - b[0]), _sign(a[1] - b[1])) for group in groups.values() for a, b in combinations(group, 2)]
    try:
        together = f"{correlation(*zip(*advantages, strict=True)):.3f}"
    except (StatisticsError, TypeError):
        together = "none: all advantages of one reward are 0"

    def share(count: int, of: int) -> str:
        return f"{count} of {of}" + (f" ({100 * count / of:.1f} %)" if of else "")

    rows = [
        ("", "run", "this reward"),
        ("mean score", f"{fmean(runs):.4f}", f"{fmean(here):.4f}"),
        ("groups with spread", *(str(sum(len({p[side] for p in g}) > 1 for g in groups.values())) for side in (0, 1))),
    ]
    lines = [f"{name:24}{left:>12}{right:>14}" for name, left, right in rows]
    pairs_of = [order for order in orders if order[0] and order[1]]
    return "\n".join(
        [
            f"{len(pairs)} responses in {len(groups)} groups: the run's reward and this one",
            *lines,
            f"pairs of a group in another order     {share(sum(a != b for a, b in pairs_of), len(orders))}",
            f"pairs that were equal and are not     {share(sum(not a and b != 0 for a, b in orders), len(orders))}",
            f"pairs that are equal and were not     {share(sum(a != 0 and not b for a, b in orders), len(orders))}",
            f"groups with another best response     {share(sum(map(_best_changed, groups.values())), len(groups))}",
            f"advantages that change their sign     {share(sum(a * b < 0 for a, b in advantages), len(advantages))}",
            f"correlation of the advantages         {together}",
        ]
    )


def advantages_of(scores: Iterable[float]) -> list[float]:
    """Return each score's distance from the mean in standard deviations; 0 for all if there is no spread."""
    values = list(scores)
    mean, spread = fmean(values), pstdev(values)
    return [(value - mean) / spread if spread > 1e-9 else 0.0 for value in values]


def _best_changed(group: list[tuple[float, float]]) -> bool:
    """Return whether no response that was the best of its group still is."""
    best = [max(side) for side in zip(*group, strict=True)]
    return not any(before == best[0] and after == best[1] for before, after in group)


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)
