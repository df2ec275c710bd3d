"""Sizes of batches that veRL would refuse minutes into a run; the remedy names sizes that it takes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from medix.errors import ConfigError
from medix_verl.preflight.config import check_batch_sizes

ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
MINI, PROCESSES = f"{ACTOR}.ppo_mini_batch_size", "trainer.n_gpus_per_node"
UPDATE, LOG_PROB = f"{ACTOR}.ppo_micro_batch_size_per_gpu", f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu"
WHOLE = {UPDATE: 1, LOG_PROB: 1}


CPU = {
    PROCESSES: 1, "data.train_batch_size": 16, MINI: 16, f"{ACTOR}.use_dynamic_bsz": False, UPDATE: 32,
    f"{ROLLOUT}.n": 8, f"{ROLLOUT}.log_prob_use_dynamic_bsz": False, LOG_PROB: 32,
}  # fmt: skip
"""The CPU recipe's sizes."""


def test_the_recipe_as_it_stands_passes(make_config: Any) -> None:
    assert check_batch_sizes(make_config(CPU)) == "16 prompts x 8 responses on 1 process(es)"


BAD_SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "mini-batch does not divide the batch": ({MINI: 5, **WHOLE}, {"data.train_batch_size": 15, MINI: 5}),
    "mini-batch larger than the batch": ({MINI: 32, **WHOLE}, {"data.train_batch_size": 16, MINI: 16}),
    # 16 prompts x 8 responses = 128 in a process: veRL fails at the first update, after minutes.
    "micro-batch that does not divide a process's share": ({UPDATE: 48}, {UPDATE: 32}),
    "log-probability micro-batch larger than a process's share": ({LOG_PROB: 256}, {LOG_PROB: 128}),
    "micro-batch of none": ({UPDATE: 0}, {UPDATE: 1}),
    # 10 x 9 = 90 responses a step are a multiple of 6 processes; 5 x 9 = 45 an update are not, 4 x 9 = 36 are.
    "processes do not divide an update": (
        {PROCESSES: 6, "data.train_batch_size": 10, MINI: 5, f"{ROLLOUT}.n": 9, **WHOLE},
        {"data.train_batch_size": 8, MINI: 4},
    ),
    # The released 512 and 128 on six trainers: 640 responses an update are no multiple of 6, 126 x 5 = 630 are.
    "the released batch on six": (
        {PROCESSES: 6, "data.train_batch_size": 512, MINI: 128, f"{ROLLOUT}.n": 5, **WHOLE},
        {"data.train_batch_size": 504, MINI: 126},
    ),
    "fewer prompts than processes": (
        {PROCESSES: 7, "data.train_batch_size": 4, MINI: 2, **WHOLE},
        {"data.train_batch_size": 7, MINI: 7},
    ),
    "a group of one": ({f"{ROLLOUT}.n": 1, **WHOLE}, {f"{ROLLOUT}.n": 2}),
}


@pytest.mark.parametrize(("changes", "remedy"), BAD_SIZES.values(), ids=BAD_SIZES.keys())
def test_sizes_that_do_not_go_together_are_refused_with_some_that_do(
    changes: dict[str, int], remedy: dict[str, int], make_config: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_batch_sizes(make_config({**CPU, **changes}))
    named = {key: int(value) for key, value in re.findall(r"([\w.]+)=(\d+)", caught.value.fix)}
    assert named == remedy
    check_batch_sizes(make_config({**CPU, **changes, **named}))


NOTHING = {
    "mini-batch of none": {MINI: 0},
    "batch of none": {"data.train_batch_size": 0},
    "negative batch": {"data.train_batch_size": -16},
    "no process": {PROCESSES: 0},
    "no node": {"trainer.nnodes": 0},
}


@pytest.mark.parametrize("changes", NOTHING.values(), ids=NOTHING.keys())
def test_a_size_of_nothing_is_refused(changes: dict[str, int], make_config: Any) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        check_batch_sizes(make_config({**CPU, **changes}))
