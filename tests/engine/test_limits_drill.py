"""For real: weights that break in an update, and the mean band with checkpoints pruned. Minutes; `make test-drill`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medix_verl.training.metrics_file import read_metrics
from tests.engine.conftest import TIMEOUT_S, run_recipe
from tests.engine.drills import model_and_data

pytestmark = [pytest.mark.drill, pytest.mark.timeout(2 * TIMEOUT_S)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The knobs that name a tiny model and its data."""
    folder = model_and_data(tmp_path_factory.mktemp("ground"))
    return {"MODEL": f"{folder}/tiny-vlm", "DATA": f"{folder}/data", "EXPORT": "0", "EVAL": "0"}


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name.split("_")[-1]) for path in (run / "checkpoints").glob("global_step_*"))


def test_broken_weights_end_the_run_and_are_not_saved(ground: dict[str, str], tmp_path: Path) -> None:
    """A learning rate that throws the weights out of the range of numbers at the first update."""
    run = tmp_path / "run"
    broken = ["actor_rollout_ref.actor.optim.lr=1e30", "trainer.val_before_train=false", "trainer.save_freq=100"]
    finished = run_recipe(run, *broken, STEPS="8", **ground)
    assert finished.returncode == 2, finished.stdout[-3000:] + finished.stderr[-3000:]
    with (run / "train.log").open(errors="replace") as log:
        first = log.readline()
    assert first.startswith("STOPPED: ")
    assert "nan" in first
    assert checkpoints(run) == []
    assert json.loads((run / "stop_reason.json").read_text())["checkpoint"] is None


def test_the_mean_band_and_two_checkpoints_kept(ground: dict[str, str], tmp_path: Path) -> None:
    """Four DAPO steps, each saved and validated; the last one and the best one stay."""
    run = tmp_path / "run"
    settings = ["medix.filter.low=0.01", "medix.filter.high=0.97", "medix.checkpoints.keep_last=1"]
    each_step = ["trainer.test_freq=1", "trainer.save_freq=1", "trainer.val_before_train=false"]
    finished = run_recipe(run, *settings, *each_step, "data.val_max_samples=48", STEPS="4", ALGO="dapo", **ground)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    rows = [row["data"] for row in read_metrics(run / "metrics.jsonl")]
    assert sum("timing_s/step" in row for row in rows) == 4
    evicted = [row.get("training/filter_groups/evicted_samples", 0) for row in rows]
    means = [row["reward/score/mean"] for row in rows if "reward/score/mean" in row]
    print(f"groups filtered out a step: {evicted}; mean reward of what was trained on: {means}")
    assert sum(evicted) > 0
    assert all(0.01 < mean < 0.97 for mean in means)  # the mean of groups within the band
    best = json.loads((run / "checkpoints" / "best.json").read_text())["step"]
    assert checkpoints(run) == sorted({best, 4})
