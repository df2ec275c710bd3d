"""Step metrics of the reward, computed from what the reward manager returned for each response of a batch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

import numpy as np

from medix.sample import NOT_APPLICABLE
from reward_fns.composite import ANSWER_HASH, DISAGREE, FLAGS, JUDGE_ASKED, JUDGE_CACHED, JUDGE_FAULTS, JUDGE_SHARED

_LATENCIES = ("judge_seconds", "embed_seconds")


def reward_metrics(groups: Sequence[str], rewards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of one batch.

    Args:
        groups: [N] group (prompt) id of each response.
        rewards: [N] the flat reward dictionaries, all with the same keys.

    Returns:
        `reward/<key>/{mean,std,zero_std_group_fraction}` for every score-like key, `reward/<key>/{p50,p95}` for
        latencies, judge calls with cache and coalescing rates, and the shares named in `_shares`.
    """
    metrics: dict[str, float] = {}
    for key in [key for key in (rewards[0] if rewards else ()) if key not in FLAGS]:
        by_group: dict[str, list[float]] = defaultdict(list)
        for group, row in zip(groups, rewards, strict=True):
            if row[key] != NOT_APPLICABLE and _was_asked(key, row):
                by_group[group].append(row[key])
        values = [value for found in by_group.values() for value in found]
        if values and key in _LATENCIES:
            p50, p95 = np.percentile(values, (50, 95), method="inverted_cdf")
            metrics |= {f"reward/{key}/p50": float(p50), f"reward/{key}/p95": float(p95)}
        elif values:
            metrics[f"reward/{key}/mean"] = fmean(values)
            metrics[f"reward/{key}/std"] = pstdev(values)
            is_level = [len(set(found)) == 1 for found in by_group.values()]
            metrics[f"reward/{key}/zero_std_group_fraction"] = fmean(is_level)
    return metrics | (_shares(groups, rewards) if rewards else {})


def _was_asked(key: str, row: Mapping[str, float]) -> bool:
    """Return whether the value counts: a time only if the scorer was asked, the judge not from the cache."""
    if key == "judge_seconds":
        return row.get(JUDGE_ASKED, 1.0) == 1.0 and row.get(JUDGE_CACHED, 0.0) == 0.0
    return key != "embed_seconds" or row.get("embed_similarity", 0.0) != NOT_APPLICABLE


def _shares(groups: Sequence[str], rewards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return calls that left this process, how many failed, and the shares of responses and of needed verdicts."""
    shares: dict[str, float] = {}
    if JUDGE_ASKED in rewards[0]:
        asked, cached, shared = (sum(row[key] for row in rewards) for key in (JUDGE_ASKED, JUDGE_CACHED, JUDGE_SHARED))
        faults = sum(row.get(JUDGE_FAULTS, 0.0) for row in rewards)
        calls = asked - cached - shared
        shares = {
            "reward/judge_calls": calls,
            "reward/judge_failures": faults,
            "reward/judge_failure_rate": faults / (faults + calls) if faults else 0.0,
            "reward/judge_cache_hit_rate": cached / asked if asked else 0.0,
            "reward/judge_coalesced_rate": shared / asked if asked else 0.0,
        }
    if ANSWER_HASH in rewards[0]:
        counts = Counter((group, row[ANSWER_HASH]) for group, row in zip(groups, rewards, strict=True))
        # A response is a duplicate when a sibling of its group gave the same answer before it.
        shares["reward/duplicate_answer_fraction"] = 1 - len(counts) / len(rewards)
    disagree = [row[DISAGREE] for row in rewards if row.get(DISAGREE, NOT_APPLICABLE) != NOT_APPLICABLE]
    return shares | ({"reward/judge_embedder_disagreement": fmean(disagree)} if disagree else {})
