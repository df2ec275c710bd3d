"""The watchdog for real: a reward that turns constant in a run of the CPU recipe, whose regular save is far away.

Minutes. `make test-drill` (`pytest -m drill`).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from medix_verl.training.metrics_file import read_metrics

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 800

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3 * TIMEOUT_S)]

# A scorer that is stuck: whatever is said, it gives the same.
FAKE_STUCK_SCORER = "def stuck(item) -> float:\n    return 0.3\n"


def run_recipe(run: Path, *overrides: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RUN": str(run), "TINY_STEPS": "30", **knobs}
    small = ["trainer.test_freq=2", "trainer.save_freq=100", "actor_rollout_ref.rollout.n=4", "data.val_max_samples=16"]
    command = ["bash", "recipes/medix/run_cpu.sh", *small, *overrides]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)


def steps_of(run: Path) -> list[int]:
    return [row["step"] for row in read_metrics(run / "metrics.jsonl") if "timing_s/step" in row["data"]]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of 12 steps with a constant reward and a watchdog that allows three of those."""
    folder = tmp_path_factory.mktemp("drill")
    scorer = folder / "stuck.py"
    scorer.write_text(FAKE_STUCK_SCORER)
    off = [
        f"medix.reward.components.{name}.weight=0" for name in ("llm_accuracy", "embed_accuracy", "modality", "format")
    ]
    run = folder / "run"
    finished = run_recipe(
        run,
        *off,
        f"+medix.reward.components.stuck={{path: '{scorer}:stuck', weight: 1}}",
        "medix.watchdog.constant_reward_steps=3",
        STEPS="12",
    )
    return run, finished


def test_it_warns_then_stops_with_the_step_under_way_saved(
    stopped: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, finished = stopped
    assert finished.returncode == 2, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert "the reward was the same for every response of 3 steps" in finished.stderr
    findings = [json.loads(line) for line in (run / "guards.jsonl").read_text().splitlines()]
    assert [(finding["level"], finding["step"]) for finding in findings] == [("warn", 2), ("stop", 3)]
    last = steps_of(run)[-1]
    assert last in (4, 5)  # step 4 was under way when step 3 was logged
    checkpoint = run / "checkpoints" / f"global_step_{last}"
    assert (checkpoint / "data.pt").exists()
    assert (checkpoint / "actor" / "manifest.json").exists()
    assert [path.name for path in (run / "checkpoints").glob("global_step_*")] == [checkpoint.name]
    reason = json.loads((run / "stop_reason.json").read_text())
    assert (reason["step"], reason["checkpoint"]) == (3, str(checkpoint))


def test_the_reason_is_the_first_line_of_the_log(stopped: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, _ = stopped
    with (run / "train.log").open() as log:
        first = log.readline()
    assert first.startswith("STOPPED: expected a healthy run; found at step 3: the reward was the same")
    assert "global_step_" in first


def test_verl_ended_by_itself_and_left_no_process(stopped: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, _ = stopped
    assert "Traceback" not in (run / "train.log").read_text(errors="replace")
    found = subprocess.run(["pgrep", "-f", str(run)], capture_output=True, text=True)
    assert found.stdout.split() == []


def test_the_mended_run_goes_on_from_there(stopped: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, _ = stopped
    before = steps_of(run)
    finished = run_recipe(run, STEPS=str(before[-1] + 2))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert steps_of(run) == [*before, before[-1] + 1, before[-1] + 2]
    assert not (run / "stop_reason.json").exists()
    assert json.loads((run / "checkpoints" / "best.json").read_text())["step"] in (before[-1], before[-1] + 2)
