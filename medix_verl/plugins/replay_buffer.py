"""veRL's replay buffer, with what a medical run needs beside it. The four jobs, in the order of a step:

1. stop on a failed session (`_sync_metadata_from_transfer_queue`): a scorer's fault must not become a score;
2. filter groups by the mean of their rewards too, and within limits (`_dapo_filtered_keys`, `_evict_terminal_groups`);
3. drop groups with a response that the judge refused for its content (`_without_refused`);
4. report: reward metrics of the batch, which veRL 0.9.1 drops, and a validation's samples (`sample`).

veRL gives a custom sampler none of the filter settings; all come through `trainer.v1.sampler.sampler_kwargs`, see
`recipes/medix/config/medix.yaml`.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.replay_buffer import FILTER_GROUPS_REWARD_METRIC, ReplayBuffer

from medix.errors import TrainingGuardError
from medix_verl.mean_band import read_mean_band
from medix_verl.plugins.reward_manager import REFUSED
from medix_verl.plugins.validation_samples import ValidationSamples
from reward_fns.telemetry import reward_metrics

logger = logging.getLogger(__name__)


class MedixReplayBuffer(ReplayBuffer):  # type: ignore[misc]
    """Sample batches for veRL's trainer.

    Settings (`sampler_kwargs`): `poll_interval_s`, `train_batch_size`, `filter_groups` (veRL's own block),
    `max_filtered_batches` (stop after so many batches' worth of filtered groups in one step), `mean_band`
    (`medix.filter`: groups to drop beside those without any spread), `validation_samples` (see `ValidationSamples`).
    """

    def __init__(self, *, sampler_kwargs: Any, **kwargs: Any) -> None:
        settings, filters = sampler_kwargs, sampler_kwargs.filter_groups
        super().__init__(
            sampler_kwargs=settings,
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
        self._shown = ValidationSamples(shown) if shown and shown.count > 0 else None
        self._band = read_mean_band(OmegaConf.to_container(settings.mean_band), bool(filters.enable))
        # Finished group -> its mean if that is out of the band, None if within: a finished group does not change.
        self._in_band: dict[str, float | None] = {}
        self._refused_in_validation = 0

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """Return a batch as veRL samples it, without groups that could not be scored, and the batch's reward metrics.

        Raises:
            TrainingGuardError: a session failed (its scorer gave up, or the rollout broke), filtering found nothing to
                train on for too long, or no group of the batch could be scored.
        """
        self._filtered_groups = 0
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        batch, rewards, refused = self._without_refused(batch)
        metrics.update(reward_metrics([_group(key) for key in rewards], list(rewards.values())))
        metrics["reward/refused_groups"] = len(refused)
        if partition_id == "val":
            # veRL does not log the metrics of a validation batch, so the count goes with the next step's.
            self._refused_in_validation += len(refused)
            if self._shown is not None:
                self._shown.after_batch(global_steps)
        else:
            metrics["reward/refused_in_validation"] = self._refused_in_validation
            self._refused_in_validation = 0
        return batch, metrics

    def _without_refused(self, batch: KVBatchMeta) -> tuple[KVBatchMeta, dict[str, dict[str, float]], set[str]]:
        """Return the batch without refused groups, its rewards by key, and the groups that were dropped.

        Training on what is left of a group would shift its baseline. veRL fills the batch up with empty sequences that
        count nowhere. In a validation, a dropped sample must not count as wrong.
        """
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        fields = [getattr(value, "data", value) for value in list(data["extra_fields"])]
        rewards = {
            key: found["reward_extra_info"]
            for key, found in zip(batch.keys, fields, strict=True)
            if "reward_extra_info" in found
        }
        refused = {_group(key) for key, reward in rewards.items() if reward.get(REFUSED)}
        if not refused:
            return batch, rewards, refused
        kept = [position for position, key in enumerate(batch.keys) if _group(key) not in refused]
        logger.warning("dropped %s group(s) of %s: the judge refused a response", len(refused), batch.partition_id)
        if not kept:
            fix = "See rollouts/refused.jsonl; take another judge, or set medix.scorer.on_refusal=stop."
            raise TrainingGuardError("The judge refused a response of every group of the batch.", fix)
        tq.kv_clear(keys=[key for key in batch.keys if _group(key) in refused], partition_id=batch.partition_id)
        if batch.partition_id == "val":
            _do_not_expect(refused)
        smaller = KVBatchMeta(
            partition_id=batch.partition_id,
            keys=[batch.keys[position] for position in kept],
            tags=[batch.tags[position] for position in kept],
        )
        return smaller, {key: reward for key, reward in rewards.items() if _group(key) not in refused}, refused

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        failed = {uid: partition for partition, uids in self.failure_keys.items() for uid in uids}
        if failed:
            # Training on the survivors of a group shifts their baseline, and validation would count the missing
            # responses as wrong: a scorer's fault would become a score.
            tags = tq.kv_list() or {}
            said = {tags.get(partition, {}).get(uid, {}).get("error") for uid, partition in failed.items()}
            reasons = "; ".join(sorted(filter(None, said))[:3]) or "the reason stands above in the log"
            raise TrainingGuardError(
                f"A response could not be rolled out or scored, in {len(failed)} group(s): {reasons}.",
                "See to the sample, the judge or the rollout server that is named, then start the same command again: "
                "it resumes.",
            )

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter[float]]:
        """Return the groups that veRL's rule drops (no spread), and ours (the mean out of `medix.filter`)."""
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
        """Return group -> the filter's metric of each of its responses."""
        keys = [key for key in self.partitions[partition_id] if _group(key) in uids]
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
            values[_group(key)].append(float(number))
        return values

    def _evict_terminal_groups(self, *args: Any, **kwargs: Any) -> tuple[set[str], int, int, dict[str, Any]]:
        evicted: tuple[set[str], int, int, dict[str, Any]] = super()._evict_terminal_groups(*args, **kwargs)
        self._filtered_groups += len(evicted[0])
        if self._filtered_groups > self._max_filtered_groups:
            raise TrainingGuardError(
                f"{self._filtered_groups} groups were filtered out in this step, above the limit of "
                f"{self._max_filtered_groups}: is the reward constant?",
                "Look at rollouts/scored.jsonl; then set algorithm.filter_groups.enable=false, or raise "
                "trainer.v1.sampler.sampler_kwargs.max_filtered_batches.",
            )
        return evicted


def _group(key: str) -> str:
    return key.split("_")[0]


def _do_not_expect(uids: set[str]) -> None:
    """Tell veRL's validation of groups that have no score; it would count each as wrong in `acc`."""
    process = trainer_base.process_validation_metrics

    def process_validation_metrics(*args: Any, expected_acc_counts: Any = None, **kwargs: Any) -> Any:
        kept = {key: count for key, count in (expected_acc_counts or {}).items() if key[1] not in uids}
        return process(*args, expected_acc_counts=kept, **kwargs)

    trainer_base.process_validation_metrics = process_validation_metrics
