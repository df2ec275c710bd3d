"""Do the sizes of batches go together? veRL asserts it only after minutes of start-up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medix.errors import ConfigError


@dataclass(frozen=True)
class Sizes:
    """Prompts a step (`batch`) and an update (`mini`), responses a prompt (`group`), and who shares them."""

    batch: int
    mini: int
    group: int
    processes: int

    @property
    def unit(self) -> int:
        """The fewest prompts whose responses the processes can share evenly."""
        return self.processes // math.gcd(self.group, self.processes)

    def fitting(self, most: int) -> tuple[int, int]:
        """(batch, mini) that go together: the largest up to `most` and `self.mini`, or the smallest there are."""
        mini = max(self.unit, min(self.mini, most) // self.unit * self.unit)
        return max(mini, most // mini * mini), mini

    def set_to(self, most: int) -> str:
        """The overrides for `fitting(most)`."""
        batch, mini = self.fitting(most)
        return f"set data.train_batch_size={batch} actor_rollout_ref.actor.ppo_mini_batch_size={mini}"


def read_sizes(config: Any) -> Sizes:
    """The sizes of a configuration.

    Raises:
        ConfigError: one of them is not above 0.
    """
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    # Processes of one sequence-parallel group work on the same responses.
    processes = gpus // max(1, config.actor_rollout_ref.actor.ulysses_sequence_parallel_size)
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if min(batch, mini, processes) < 1:
        found = f"{batch}, {mini} and {processes}"
        raise ConfigError("train_batch_size, ppo_mini_batch_size and processes above 0", found, "raise what is 0")
    return Sizes(batch, mini, config.actor_rollout_ref.rollout.n, processes)


def check_batch_sizes(config: Any) -> str:
    """Divisibility, with sizes near by that divide.

    Raises:
        ConfigError: for the first size that does not.
    """
    sizes = read_sizes(config)
    for expected, good, fix in _rules(config, sizes):
        if not good:
            raise ConfigError(expected, "it is not", fix)
    return f"{sizes.batch} prompts x {sizes.group} responses on {sizes.processes} process(es)"


def _rules(config: Any, sizes: Sizes) -> Iterator[tuple[str, bool, str]]:
    """What has to hold, whether it does, and what to do; each is reckoned only where those before it hold."""
    batch, mini, group, processes = sizes.batch, sizes.mini, sizes.group, sizes.processes
    least = "rollout.n to be at least 2 (a group of one has no advantage)"
    yield least, group >= 2, "set actor_rollout_ref.rollout.n=2 or more"
    fix = sizes.set_to(batch)
    shared = f"a multiple of the {processes} processes"
    yield f"ppo_mini_batch_size x rollout.n ({mini * group}) to be {shared}", mini * group % processes == 0, fix
    expected = f"data.train_batch_size ({batch}) to be a multiple of actor.ppo_mini_batch_size ({mini})"
    yield expected, batch % mini == 0, fix
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    # veRL sizes the micro-batches itself where they are dynamic.
    for key, size, dynamic, responses in (
        ("actor.ppo", actor.ppo_micro_batch_size_per_gpu, actor.use_dynamic_bsz, mini * group // processes),
        (
            "rollout.log_prob",
            rollout.log_prob_micro_batch_size_per_gpu,
            rollout.log_prob_use_dynamic_bsz,
            batch * group // processes,
        ),
    ):
        if size is not None and not dynamic:
            name = f"{key}_micro_batch_size_per_gpu"
            near = max((part for part in range(1, size + 1) if responses % part == 0), default=1)
            expected = f"a process's {responses} responses to be a multiple of {name} ({size})"
            yield expected, size > 0 and responses % size == 0, f"set actor_rollout_ref.{name}={near}"
