"""Step metrics of the reward, with the arithmetic stated."""

from __future__ import annotations

import pytest

from medix.sample import NOT_APPLICABLE
from medix_verl.training.watch import JUDGE_FAILURE_RATE
from reward_fns.composite import ANSWER_HASH, DISAGREE
from reward_fns.telemetry import reward_metrics

GROUPS = ["a", "a", "b", "b"]


def rows(**columns: list[float]) -> list[dict[str, float]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_nothing_scored_is_no_metric() -> None:
    assert reward_metrics([], []) == {}


def test_mean_spread_and_the_share_of_groups_without_spread() -> None:
    found = reward_metrics(GROUPS, rows(score=[1.0, 0.0, 1.0, 1.0]))
    assert found == {
        "reward/score/mean": 0.75,  # 3 of 4
        "reward/score/std": pytest.approx(3**0.5 / 4),  # variance 3/4 x 1/4
        "reward/score/zero_std_group_fraction": 0.5,  # group b of a, b
    }


def test_responses_without_a_value_are_left_out_of_the_mean() -> None:
    found = reward_metrics(GROUPS, rows(modality=[1.0, 0.0, NOT_APPLICABLE, NOT_APPLICABLE]))
    assert found["reward/modality/mean"] == 0.5
    assert found["reward/modality/zero_std_group_fraction"] == 0.0  # of group a: group b has no modality


def test_groups_without_the_component_are_no_groups_without_spread() -> None:
    found = reward_metrics(["a", "a", "b", "b", "c", "c"], rows(modality=[1.0, 0.0, 1.0, 1.0, *[NOT_APPLICABLE] * 2]))
    assert found["reward/modality/zero_std_group_fraction"] == 0.5  # b of a and b


def test_a_column_that_nobody_has_is_left_out() -> None:
    assert reward_metrics(GROUPS, rows(judge_yes_probability=[NOT_APPLICABLE] * 4)) == {}


def test_latencies_are_percentiles() -> None:
    found = reward_metrics(GROUPS, rows(judge_seconds=[0.4, 0.1, 0.3, 0.2]))
    # Nearest rank of 4 values: p50 is the 2nd (4 x 0.5), p95 the 4th (3.8 rounded up).
    assert found == {"reward/judge_seconds/p50": 0.2, "reward/judge_seconds/p95": 0.4}


def test_only_responses_that_waited_for_a_scorer_have_a_latency() -> None:
    """Of 4 responses one asked the judge and one the cache, two the embedder: p50 of 0.2 alone, and of 0.3 and 0.5."""
    found = reward_metrics(
        GROUPS,
        rows(
            judge_seconds=[0.2, 0.001, 0.0, 0.0],
            judge_asked=[1.0, 1.0, 0.0, 0.0],
            judge_cached=[0.0, 1.0, 0.0, 0.0],
            judge_shared=[0.0] * 4,
            embed_seconds=[0.5, 0.3, 0.0, 0.0],
            embed_similarity=[0.9, 0.1, NOT_APPLICABLE, NOT_APPLICABLE],
        ),
    )
    assert found["reward/judge_seconds/p50"] == found["reward/judge_seconds/p95"] == 0.2
    assert (found["reward/embed_seconds/p50"], found["reward/embed_seconds/p95"]) == (0.3, 0.5)


def test_a_repeated_answer_counts_within_its_group_only() -> None:
    found = reward_metrics(GROUPS, rows(**{ANSWER_HASH: [7.0, 7.0, 7.0, 8.0]}))
    assert found == {"reward/duplicate_answer_fraction": 0.25}  # the second 7 of group a


def test_disagreement_is_a_share_of_the_responses_that_both_were_asked_about() -> None:
    found = reward_metrics(GROUPS, rows(**{DISAGREE: [1.0, 0.0, 0.0, NOT_APPLICABLE]}))
    assert found == {"reward/judge_embedder_disagreement": pytest.approx(1 / 3)}
    assert reward_metrics(GROUPS, rows(**{DISAGREE: [NOT_APPLICABLE] * 4})) == {}


RESPONSES = {
    "exact match, nobody asked": (0.0, 0.0, 0.0),
    "asked": (1.0, 0.0, 0.0),
    "from the cache": (1.0, 1.0, 0.0),
    "shared with a call in flight": (1.0, 0.0, 1.0),
}


def test_calls_and_rates_count_only_needed_verdicts() -> None:
    """4 responses, 3 verdicts needed: 1 cached, 1 shared, so 3 - 1 - 1 = 1 call and rates of 1/3."""
    rows = [{"judge_asked": a, "judge_cached": c, "judge_shared": s} for a, c, s in RESPONSES.values()]
    metrics = reward_metrics(["g"] * 4, rows)
    assert metrics["reward/judge_calls"] == 1
    assert metrics["reward/judge_cache_hit_rate"] == pytest.approx(1 / 3)
    assert metrics["reward/judge_coalesced_rate"] == pytest.approx(1 / 3)


def test_failed_requests_are_a_share_of_all_requests() -> None:
    """Two verdicts that took 1 + 2 failed requests besides their own: 3 of 5 failed."""
    rows = [
        {"judge_asked": 1.0, "judge_cached": 0.0, "judge_shared": 0.0, "judge_faults": faults} for faults in (1.0, 2.0)
    ]
    metrics = reward_metrics(["g", "g"], rows)
    assert metrics["reward/judge_failures"] == 3
    assert metrics[JUDGE_FAILURE_RATE] == pytest.approx(3 / 5)
    assert "reward/judge_faults/mean" not in metrics


def test_no_verdict_needed_is_a_rate_of_zero() -> None:
    metrics = reward_metrics(["g"], [{"judge_asked": 0.0, "judge_cached": 0.0, "judge_shared": 0.0}])
    assert metrics["reward/judge_calls"] == 0
    assert metrics[JUDGE_FAILURE_RATE] == 0.0
    assert metrics["reward/judge_cache_hit_rate"] == 0.0
