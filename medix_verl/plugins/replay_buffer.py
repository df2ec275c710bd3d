"""veRL's replay buffer, with what a medical run needs beside it: reward telemetry, guards, and a shorter poll.

veRL 0.9.1 drops `reward_extra_info` in training and gives a custom sampler none of the filter settings; both come
through `trainer.v1.sampler.sampler_kwargs`, see `recipes/medix/config/medix.yaml`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import FILTER_GROUPS_REWARD_METRIC, ReplayBuffer

from medix.errors import TrainingGuardError
from medix_verl.mean_band import read_mean_band
from medix_verl.plugins.validation_trackers import SampleTrackers
from reward_fns.telemetry import reward_metrics


class MedixReplayBuffer(ReplayBuffer):  # type: ignore[misc]
    """Settings (`sampler_kwargs`): `poll_interval_s`, `train_batch_size`, `filter_groups` (veRL's own block),
    `max_filtered_batches` (stop after so many batches' worth of filtered groups in one step), `mean_band`
    (`medix.filter`: groups to drop beside those without any spread), `validation_samples` (see `validation_trackers`).

    Raises:
        ConfigError: a band that is empty, or that nothing would apply.
    """

    def __init__(self, *, sampler_kwargs: Any, **kwargs: Any) -> None:
        settings = sampler_kwargs
        filters = settings.filter_groups
        super().__init__(
            sampler_kwargs=sampler_kwargs,
            poll_interval=settings.poll_interval_s,
            filter_groups_metric=str(filters.metric) if filters.enable else None,
            train_batch_size=settings.train_batch_size,
            gen_batch_size=1,
            max_inflight_gen_batches=filters.max_inflight_gen_batches,
            **kwargs,
        )
        self._max_filtered_groups = settings.max_filtered_batches * settings.train_batch_size
        self._filtered_groups = 0
        shown = settings.get("validation_samples")
        self._shown = SampleTrackers(shown) if shown and shown.count > 0 else None
        self._band = read_mean_band(OmegaConf.to_container(settings.mean_band), bool(filters.enable))
        self._in_band: dict[str, float | None] = {}
        """Finished group -> its mean if that is out of the band, None if within: a finished group does not change."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """veRL's own sampling, then the batch's reward metrics.

        Raises:
            TrainingGuardError: a session failed (its scorer gave up, or the rollout broke), or filtering found
                nothing to train on for too long.
        """
        self._filtered_groups = 0
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        metrics.update(self._telemetry(batch))
        if partition_id == "val" and self._shown is not None:
            self._shown.after_batch(global_steps)
        return batch, metrics

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        failed = {uid for keys in self.failure_keys.values() for uid in keys}
        if failed:
            # Training on the survivors of a group shifts their baseline, and validation would count the missing
            # responses as wrong: a scorer's fault would become a score.
            raise TrainingGuardError(
                "every response of a batch rolled out and scored",
                f"{len(failed)} group(s) with a failed session (the reason stands above in the log)",
                "see to the judge or the rollout server, then start the same command again: it resumes",
            )

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter[float]]:
        """veRL's rule (no spread), then ours (the mean out of `medix.filter`) on what that leaves."""
        filtered, counts = super()._dapo_filtered_keys(partition_id)
        if self._band.is_off or partition_id == "val":
            return filtered, counts
        finished = self.finished_keys[partition_id] - filtered
        self._in_band = {uid: mean for uid, mean in self._in_band.items() if uid in finished}
        for uid, values in self._metric_values(partition_id, finished - self._in_band.keys()).items():
            self._in_band[uid] = None if self._band.keeps(values) else round(sum(values) / len(values), 4)
        outside = {uid: mean for uid, mean in self._in_band.items() if mean is not None}
        return filtered | outside.keys(), counts + Counter(outside.values())

    def _metric_values(self, partition_id: str, uids: set[str]) -> dict[str, list[float]]:
        """Group -> the filter's metric of each of its responses."""
        keys = [key for key in self.partitions[partition_id] if key.split("_")[0] in uids]
        values: dict[str, list[float]] = defaultdict(list)
        if not keys:
            return values
        canonical = self.filter_groups_metric == FILTER_GROUPS_REWARD_METRIC
        field = "rm_scores" if canonical else "extra_fields"
        data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=[field])
        for key, value in zip(keys, list(data[field]), strict=True):
            info = {} if canonical else getattr(value, "data", value).get("reward_extra_info", {})
            # veRL's own rule has seen these groups first, and refuses a metric that a response does not have.
            number = value.sum().item() if canonical else info[self.filter_groups_metric]
            values[key.split("_")[0]].append(float(number))
        return values

    def _evict_terminal_groups(self, *args: Any, **kwargs: Any) -> tuple[set[str], int, int, dict[str, Any]]:
        evicted: tuple[set[str], int, int, dict[str, Any]] = super()._evict_terminal_groups(*args, **kwargs)
        self._filtered_groups += len(evicted[0])
        if self._filtered_groups > self._max_filtered_groups:
            raise TrainingGuardError(
                f"a batch of groups with differing rewards within {self._max_filtered_groups} groups",
                f"{self._filtered_groups} groups filtered out in this step (is the reward constant?)",
                "look at rollouts/scored.jsonl; then set algorithm.filter_groups.enable=false, or raise "
                "trainer.v1.sampler.sampler_kwargs.max_filtered_batches",
            )
        return evicted

    def _telemetry(self, batch: KVBatchMeta) -> dict[str, float]:
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        groups, rewards = [], []
        for key, value in zip(batch.keys, list(data["extra_fields"]), strict=True):
            fields = getattr(value, "data", value)
            if "reward_extra_info" in fields:
                groups.append(key.split("_")[0])
                rewards.append(fields["reward_extra_info"])
        return reward_metrics(groups, rewards)
