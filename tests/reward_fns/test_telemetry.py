"""Step metrics of the reward, with the arithmetic stated."""

from __future__ import annotations

import pytest

from medix.sample import NOT_APPLICABLE as NA
from medix_verl.training.watch import JUDGE_FAILURE_RATE
from reward_fns.composite import ANSWER_HASH, DISAGREE
from reward_fns.telemetry import reward_metrics

GROUPS = ["a", "a", "b", "b"]


def rows(**columns: list[float]) -> list[dict[str, float]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    ("groups", "columns", "expected"),
    [
        ([], {}, {}),
        # 3 of 4; variance 3/4 x 1/4; group b of a, b.
        (GROUPS, {"score": [1, 0, 1, 1]},
         {"score/mean": 0.75, "score/std": 3**0.5 / 4, "score/zero_std_group_fraction": 0.5}),
        # Group b has no modality, so that it is neither in the mean nor a group without spread.
        (GROUPS, {"modality": [1, 0, NA, NA]},
         {"modality/mean": 0.5, "modality/std": 0.5, "modality/zero_std_group_fraction": 0.0}),
        ([*GROUPS, "c", "c"], {"modality": [1, 0, 1, 1, NA, NA]},
         {"modality/mean": 0.75, "modality/std": 3**0.5 / 4, "modality/zero_std_group_fraction": 0.5}),
        (GROUPS, {"judge_yes_probability": [NA] * 4}, {}),
        # Nearest rank of 4 values: p50 is the 2nd (4 x 0.5), p95 the 4th (3.8 rounded up).
        (GROUPS, {"judge_seconds": [0.4, 0.1, 0.3, 0.2]}, {"judge_seconds/p50": 0.2, "judge_seconds/p95": 0.4}),
        (GROUPS, {ANSWER_HASH: [7, 7, 7, 8]}, {"duplicate_answer_fraction": 0.25}),  # the second 7 of group a
        (GROUPS, {DISAGREE: [1, 0, 0, NA]}, {"judge_embedder_disagreement": 1 / 3}),
        (GROUPS, {DISAGREE: [NA] * 4}, {}),
    ],
)  # fmt: skip
def test_metrics_of_a_column(groups: list[str], columns: dict[str, list[float]], expected: dict[str, float]) -> None:
    found = reward_metrics(groups, rows(**columns))
    assert found == pytest.approx({f"reward/{name}": value for name, value in expected.items()})


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
            embed_similarity=[0.9, 0.1, NA, NA],
        ),
    )
    assert found["reward/judge_seconds/p50"] == found["reward/judge_seconds/p95"] == 0.2
    assert (found["reward/embed_seconds/p50"], found["reward/embed_seconds/p95"]) == (0.3, 0.5)


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
