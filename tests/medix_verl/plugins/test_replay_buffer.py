"""The replay buffer on veRL's own class; only the transfer queue, its outermost seam, is a fake."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import TrainingGuardError
from reward_fns.composite import ANSWER_HASH

pytestmark = pytest.mark.slow  # imports torch, veRL and Ray


class FakeTransferQueue:
    """A key-value store in this process: tags of prompts and trajectories, and what each trajectory carries."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.rewards: dict[str, dict[str, float]] = {}

    def add_group(self, uid: str, scores: list[float], status: str = "finished", partition: str = "train") -> None:
        self.tags[partition][uid] = {"is_prompt": True, "global_steps": 1, "status": status}
        for session, score in enumerate(scores):
            self.tags[partition][f"{uid}_{session}_0"] = {"seq_len": 7}
            self.rewards[f"{uid}_{session}_0"] = {"score": score, ANSWER_HASH: score}

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, Any]]:
        return {partition: dict(tags) for partition, tags in self.tags.items()}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            self.tags[partition_id].pop(key, None)

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, list[Any]]:
        import torch
        from tensordict import NonTensorData

        rewards = [self.rewards[key] for key in keys]
        return {
            # veRL hands them over wrapped or not.
            "extra_fields": [NonTensorData({"reward_extra_info": reward}) for reward in rewards],
            "rm_scores": [torch.tensor([0.0, reward["score"]]) for reward in rewards],
        }


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> FakeTransferQueue:
    import transfer_queue

    fake = FakeTransferQueue()
    for name in ("kv_list", "kv_clear", "kv_batch_get"):
        monkeypatch.setattr(transfer_queue, name, getattr(fake, name))
    return fake


def make_buffer(
    filtering: bool = False,
    refill: Any = None,
    max_filtered_batches: int = 2,
    band: tuple[float | None, float | None] = (None, None),
    metric: str = "reward",
) -> Any:
    """As veRL's trainer makes a custom sampler, with batches of two groups."""
    from medix_verl.plugins.replay_buffer import MedixReplayBuffer

    settings = {
        "poll_interval_s": 0.001,
        "train_batch_size": 2,
        "filter_groups": {"enable": filtering, "metric": metric, "max_inflight_gen_batches": 1},
        "max_filtered_batches": max_filtered_batches,
        "mean_band": {"low": band[0], "high": band[1]},
    }
    policy = {"trainer_mode": "sync", "max_off_policy_threshold": 1, "max_off_policy_strategy": "drop"}
    return MedixReplayBuffer(trainer_config={}, **policy, sampler_kwargs=OmegaConf.create(settings), refill_fn=refill)


def test_a_batch_comes_with_the_metrics_of_its_own_rewards(queue: FakeTransferQueue) -> None:
    queue.add_group("aaa", [1.0, 0.0])
    queue.add_group("bbb", [1.0, 1.0])
    queue.add_group("ccc", [0.0, 0.0], status="running")
    batch, metrics = make_buffer().sample(1, "train", 2)
    assert sorted(batch.keys) == ["aaa_0_0", "aaa_1_0", "bbb_0_0", "bbb_1_0"]
    assert metrics["reward/score/mean"] == 0.75  # 3 of 4
    assert metrics["reward/score/zero_std_group_fraction"] == 0.5  # group bbb
    assert metrics["reward/duplicate_answer_fraction"] == 0.25  # the second answer of group bbb


@pytest.mark.parametrize("partition", ["train", "val"])
def test_a_failed_session_stops_the_run_instead_of_shifting_a_baseline(
    partition: str, queue: FakeTransferQueue
) -> None:
    queue.add_group("aaa", [1.0, 0.0], partition=partition)
    queue.add_group("bbb", [1.0], status="failure", partition=partition)
    queue.tags[partition]["bbb"]["error"] = "sample 'scan-7': OSError: truncated"
    with pytest.raises(TrainingGuardError, match=r"in 1 group\(s\): sample 'scan-7': OSError: truncated"):
        make_buffer().sample(1, partition, 2)


REFUSED = {"score": 0.0, "acc": 0.0, "sample_refused": 1.0}


def test_a_group_with_a_refused_response_is_dropped_and_counted(queue: FakeTransferQueue) -> None:
    for uid in ("aaa", "bbb"):
        queue.add_group(uid, [1.0, 0.0])
    queue.rewards["bbb_1_0"] = REFUSED
    batch, metrics = make_buffer().sample(1, "train", 2)
    assert batch.keys == ["aaa_0_0", "aaa_1_0"]
    assert len(batch.tags) == 2
    assert "bbb_0_0" not in queue.tags["train"]
    assert metrics["reward/refused_groups"] == 1
    assert metrics["reward/score/mean"] == 0.5  # of group aaa alone


def test_a_batch_of_refused_groups_ends_the_run(queue: FakeTransferQueue) -> None:
    queue.add_group("aaa", [1.0, 0.0])
    queue.rewards["aaa_0_0"] = REFUSED
    with pytest.raises(TrainingGuardError, match="every group of the batch"):
        make_buffer().sample(1, "train", 1)


def test_a_refused_sample_of_a_validation_is_not_counted_as_wrong(
    queue: FakeTransferQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.trainer.ppo.v1 import trainer_base

    monkeypatch.setattr(trainer_base, "process_validation_metrics", trainer_base.process_validation_metrics)
    queue.add_group("aaa", [1.0], partition="val")
    queue.add_group("bbb", [0.0], partition="val")
    queue.rewards["bbb_0_0"] = REFUSED
    buffer = make_buffer()
    batch, _ = buffer.sample(1, "val", 2)
    assert batch.keys == ["aaa_0_0"]
    counts = {("source", "aaa"): 1, ("source", "bbb"): 1}
    found = trainer_base.process_validation_metrics(["source"], ["aaa"], {"acc": [1.0]}, expected_acc_counts=counts)
    assert found["source"]["acc"]["mean@1"] == 1.0
    queue.add_group("ccc", [1.0, 0.0])
    _, metrics = buffer.sample(1, "train", 1)
    assert (metrics["reward/refused_in_validation"], metrics["reward/refused_groups"]) == (1, 0)


def test_groups_without_spread_are_replaced(queue: FakeTransferQueue) -> None:
    queue.add_group("aaa", [1.0, 0.0])
    queue.add_group("bbb", [1.0, 1.0])
    asked: list[int] = []
    added: set[str] = set()

    def refill(number: int) -> None:
        asked.append(number)
        for _ in range(number):
            added.add(f"new{len(added)}")
            queue.add_group(f"new{len(added) - 1}", [0.0, 1.0])

    batch, metrics = make_buffer(filtering=True, refill=refill).sample(1, "train", 2)
    assert asked == [2]  # veRL asks for two in place of each group filtered out
    trained_on = {key.split("_")[0] for key in batch.keys}
    assert len(trained_on) == 2  # of the three that have spread; which two, veRL takes from an unordered set
    assert trained_on < {"aaa", *added}
    assert metrics["training/filter_groups/evicted_samples"] == 1
    assert metrics["reward/score/zero_std_group_fraction"] == 0.0


# Five responses each; see tests/medix_verl/training/test_mean_band.py for the arithmetic.
PLANTED = {
    "wrong": [0.145] * 5,  # no spread: veRL's rule
    "perfect": [1.0] * 5,  # no spread: veRL's rule
    "nearly": [1.0] * 4 + [0.955],  # mean 0.991: the band
    "hopeless": [0.02] + [0.0] * 4,  # mean 0.004: the band
    "good": [1.0, 1.0, 0.145, 0.145, 0.145],
    "fair": [1.0, 0.0, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("metric", ["reward", "score"], ids=["veRL's own reward", "a component"])
@pytest.mark.parametrize(
    ("band", "dropped"),
    [((None, None), {"wrong", "perfect"}), ((0.01, 0.99), {"wrong", "perfect", "nearly", "hopeless"})],
    ids=["no spread", "no spread, or out of the band"],
)
def test_the_mean_band_drops_groups_beside_those_without_spread(
    band: tuple[float | None, float | None], dropped: set[str], metric: str, queue: FakeTransferQueue
) -> None:
    for uid, scores in PLANTED.items():
        queue.add_group(uid, scores)
    kept = len(PLANTED) - len(dropped)
    buffer = make_buffer(filtering=True, refill=lambda number: None, band=band, max_filtered_batches=9, metric=metric)
    batch, metrics = buffer.sample(1, "train", kept)
    assert {key.split("_")[0] for key in batch.keys} == PLANTED.keys() - dropped
    assert metrics["training/filter_groups/evicted_samples"] == len(dropped)


def test_validation_is_never_filtered(queue: FakeTransferQueue) -> None:
    queue.add_group("easy", PLANTED["nearly"], partition="val")
    batch, _ = make_buffer(filtering=True, refill=lambda number: None, band=(0.01, 0.99)).sample(1, "val", 1)
    assert len(batch.keys) == 5


@pytest.mark.parametrize(
    ("scores", "band"), [([0.0, 0.0], (None, None)), (PLANTED["nearly"], (0.01, 0.99))], ids=["no spread", "the band"]
)
def test_filtering_that_finds_nothing_ends_with_an_error(
    scores: list[float], band: tuple[float | None, float | None], queue: FakeTransferQueue
) -> None:
    made = 0

    def refill(number: int) -> None:
        nonlocal made
        for _ in range(number):
            made += 1
            queue.add_group(f"dull{made}", scores)

    refill(2)
    with pytest.raises(TrainingGuardError, match="is the reward constant") as caught:
        make_buffer(filtering=True, refill=refill, band=band).sample(1, "train", 2)
    assert "limit of 4" in caught.value.problem  # 2 batches of 2 groups
    assert made <= 8


def test_the_count_of_filtered_groups_starts_anew_with_each_step(queue: FakeTransferQueue) -> None:
    buffer = make_buffer(filtering=True, refill=lambda number: None, max_filtered_batches=1)
    for step in (1, 2, 3):
        for name in ("x", "y"):
            queue.add_group(f"{name}{step}", [0.0, 1.0])
        queue.add_group(f"dull{step}", [0.0, 0.0])
        queue.add_group(f"flat{step}", [1.0, 1.0])  # two filtered in each step, six in all, the limit is two a step
        buffer.sample(step, "train", 2)
        queue.tags["train"].clear()
