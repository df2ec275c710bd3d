"""The CPU recipe for real, and one run of it that several test files look at."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ["bash", "recipes/medix/run_cpu.sh"]
TIMEOUT_S = 800

SMALL = [
    *("trainer.test_freq=100", "trainer.save_freq=3", "actor_rollout_ref.rollout.n=4"),
    "+medix.reward.components.spread={path: tests/engine/spread.py:spread, weight: 0.1}",
]


def run_recipe(run: Path, *overrides: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RUN": str(run), "TINY_STEPS": "30", **knobs}
    return subprocess.run(
        [*RECIPE, *SMALL, *overrides], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )


@pytest.fixture(scope="session")
def two_rank_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three GRPO steps on two FSDP2 ranks and two vLLM replicas, to the closing table."""
    run = tmp_path_factory.mktemp("two_ranks") / "run"
    finished = run_recipe(run, "trainer.n_gpus_per_node=2", STEPS="3")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return run
