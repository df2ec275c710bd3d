"""For real: a reward that turns constant, weights that break in an update, the mean band with checkpoints pruned.

Minutes. `make test-drill` (`pytest -m drill`).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from medix_verl.training.metrics_file import read_metrics
from tests.engine.conftest import TIMEOUT_S, run_recipe
from tests.engine.drills import model_and_data

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3 * TIMEOUT_S)]

# A scorer that is stuck: whatever is said, it gives the same.
FAKE_STUCK_SCORER = "def stuck(item) -> float:\n    return 0.3\n"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The knobs that name a tiny model and its data."""
    folder = model_and_data(tmp_path_factory.mktemp("ground"))
    return {"MODEL": f"{folder}/tiny-vlm", "DATA": f"{folder}/data", "EXPORT": "0", "EVAL": "0"}


def steps_of(run: Path) -> list[int]:
    return [row["step"] for row in read_metrics(run / "metrics.jsonl") if "timing_s/step" in row["data"]]


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name.split("_")[-1]) for path in (run / "checkpoints").glob("global_step_*"))


def last_line(run: Path) -> str:
    return (run / "train.log").read_text(errors="replace").splitlines()[-1]


def test_a_constant_reward_is_warned_of_then_stopped_saved_and_trained_on_elsewhere(
    ground: dict[str, str], tmp_path: Path
) -> None:
    run, mended, scorer = tmp_path / "run", tmp_path / "mended", tmp_path / "stuck.py"
    scorer.write_text(FAKE_STUCK_SCORER)
    stuck = [
        f"medix.reward.components.{name}.weight=0" for name in ("llm_accuracy", "embed_accuracy", "modality", "format")
    ]
    stuck += [f"+medix.reward.components.stuck={{path: '{scorer}:stuck', weight: 1}}"]
    seldom = ["trainer.test_freq=2", "trainer.save_freq=100", "data.val_max_samples=16"]
    finished = run_recipe(run, *seldom, *stuck, "medix.watchdog.constant_reward_steps=3", STEPS="12", **ground)
    assert finished.returncode == 2, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert "the reward was the same for every response (3 steps running)" in finished.stderr
    findings = [json.loads(line) for line in (run / "guards.jsonl").read_text().splitlines()]
    assert [(finding["level"], finding["step"]) for finding in findings] == [("warn", 2), ("stop", 3)]
    last = steps_of(run)[-1]
    assert last in (4, 5)  # step 4 was under way when step 3 was logged
    checkpoint = run / "checkpoints" / f"global_step_{last}"
    assert (checkpoint / "actor" / "manifest.json").exists()
    assert checkpoints(run) == [last]
    reason = json.loads((run / "stop_reason.json").read_text())
    assert (reason["step"], reason["checkpoint"]) == (3, str(checkpoint))
    assert last_line(run).startswith("STOPPED: A guard stopped the run at step 3: the reward was the same")
    assert "Traceback" not in (run / "train.log").read_text(errors="replace")  # veRL ended by itself
    assert subprocess.run(["pgrep", "-f", str(run)], capture_output=True, text=True).stdout.split() == []

    # The folder belongs to the stuck reward: the mended one is trained from its checkpoint in another.
    refused = run_recipe(run, STEPS=str(last + 2), **ground)
    assert refused.returncode == 2
    assert "holds a run with other settings" in refused.stderr
    resume = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={checkpoint}"]
    finished = run_recipe(mended, *seldom, *resume, STEPS=str(last + 2), **ground)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert steps_of(mended) == [last + 1, last + 2]
    assert json.loads((mended / "checkpoints" / "best.json").read_text())["step"] == last + 2


def test_broken_weights_end_the_run_and_are_not_saved(ground: dict[str, str], tmp_path: Path) -> None:
    """A learning rate that throws the weights out of the range of numbers at the first update."""
    run = tmp_path / "run"
    broken = ["actor_rollout_ref.actor.optim.lr=1e30", "trainer.val_before_train=false", "trainer.save_freq=100"]
    finished = run_recipe(run, *broken, STEPS="8", **ground)
    assert finished.returncode == 2, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert last_line(run).startswith("STOPPED: ")
    assert "nan" in last_line(run)
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
