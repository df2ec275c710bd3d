"""Step metrics of the reward, computed from what the reward manager returned for each response of a batch."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from medix.sample import NOT_APPLICABLE
from reward_fns.composite import ANSWER_HASH, DISAGREE, FLAGS, JUDGE_ASKED, JUDGE_CACHED, JUDGE_FAULTS, JUDGE_SHARED

_LATENCIES = ("judge_seconds", "embed_seconds")
_JUDGE_FLAGS = (JUDGE_ASKED, JUDGE_CACHED, JUDGE_SHARED)


def reward_metrics(groups: Sequence[str], rewards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of one batch.

    Args:
        groups: [N] group (prompt) id of each response.
        rewards: [N] the flat reward dictionaries, all with the same keys.

    Returns:
        `reward/<key>/{mean,std,zero_std_group_fraction}` for every score-like key, `reward/<key>/{p50,p95}` for
        latencies, judge calls with cache and coalescing rates, and the shares named in `_shares`.
    """
    if not rewards:
        return {}
    metrics: dict[str, float] = {}
    for key in rewards[0]:
        values = [row[key] for row in rewards if row[key] != NOT_APPLICABLE]
        if key in _LATENCIES:
            values = [row[key] for row in rewards if _was_called(key, row)]
        if key in FLAGS or not values:
            continue
        if key in _LATENCIES:
            metrics[f"reward/{key}/p50"], metrics[f"reward/{key}/p95"] = percentile(values, 50), percentile(values, 95)
            continue
        metrics[f"reward/{key}/mean"] = fmean(values)
        metrics[f"reward/{key}/std"] = pstdev(values)
        metrics[f"reward/{key}/zero_std_group_fraction"] = _zero_spread_share(groups, [row[key] for row in rewards])
    metrics.update(_shares(groups, rewards))
    return metrics


def _was_called(key: str, row: Mapping[str, float]) -> bool:
    """Whether the scorer was asked for this response, the judge not from the cache: else its time is no latency."""
    if key == "judge_seconds":
        return row.get(JUDGE_ASKED, 1.0) == 1.0 and row.get(JUDGE_CACHED, 0.0) == 0.0
    return row.get("embed_similarity", 0.0) != NOT_APPLICABLE


def _zero_spread_share(groups: Sequence[str], values: Sequence[float]) -> float:
    """Of the groups with a value, the share in which all values are one."""
    by_group: dict[str, set[float]] = defaultdict(set)
    for group, value in zip(groups, values, strict=True):
        if value != NOT_APPLICABLE:
            by_group[group].add(value)
    return fmean(len(distinct) == 1 for distinct in by_group.values())


def _shares(groups: Sequence[str], rewards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    shares = _judge_counts(rewards) if JUDGE_ASKED in rewards[0] else {}
    if ANSWER_HASH in rewards[0]:
        counts = Counter((group, row[ANSWER_HASH]) for group, row in zip(groups, rewards, strict=True))
        # A response is a duplicate when a sibling of its group gave the same answer before it.
        shares["reward/duplicate_answer_fraction"] = 1 - len(counts) / len(rewards)
    disagree = [row[DISAGREE] for row in rewards if row.get(DISAGREE, NOT_APPLICABLE) != NOT_APPLICABLE]
    if disagree:
        shares["reward/judge_embedder_disagreement"] = fmean(disagree)
    return shares


def _judge_counts(rewards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Calls that left this process, how many failed on the way, and the shares of needed verdicts that cost no call."""
    asked, cached, shared = (sum(row[key] for row in rewards) for key in _JUDGE_FLAGS)
    faults, calls = sum(row.get(JUDGE_FAULTS, 0.0) for row in rewards), asked - cached - shared
    return {
        "reward/judge_calls": calls,
        "reward/judge_failures": faults,
        "reward/judge_failure_rate": faults / (faults + calls) if faults else 0.0,
        "reward/judge_cache_hit_rate": cached / asked if asked else 0.0,
        "reward/judge_coalesced_rate": shared / asked if asked else 0.0,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of at least one value; `percent` in [0, 100]."""
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
