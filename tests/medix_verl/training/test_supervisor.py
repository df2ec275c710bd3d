"""The supervisor against small processes that stand for veRL: it reports why they end, and leaves none behind."""

from __future__ import annotations

import functools
import io
import json
import re
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from medix.errors import ConfigError, TrainingGuardError
from medix.files import hold_folder
from medix.processes import end_processes
from medix_verl.training import supervisor as module
from medix_verl.training import watch
from medix_verl.training.checkpoints import CheckpointKeeper, CheckpointOptions
from medix_verl.training.metrics_file import read_metrics
from medix_verl.training.supervisor import Supervisor
from medix_verl.training.watch import PEARSON, read_watchdog

pytestmark = pytest.mark.slow  # each starts processes and waits for them

# What veRL's file logger does: it empties its file, then writes a line a step; NaN becomes null.
FAKE_TRAINER = """
import json, os, signal, subprocess, sys, time
log = open(os.environ["VERL_FILE_LOGGER_PATH"], "wb", buffering=0)
def step(number, **data):
    log.write(json.dumps({"step": number, "data": data}).encode() + b"\\n")
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "end_processes", functools.partial(end_processes, grace_s=1.0))
    monkeypatch.chdir(tmp_path)


def fake(script: str) -> list[str]:
    return [sys.executable, "-S", "-c", FAKE_TRAINER + script]


def supervise(run_dir: Path, command: list[str], keep: bool = False, **watchdog: float) -> str:
    """Run the command under watch, with a keeper of its checkpoints or without; returns what was shown on a stderr that
    is no terminal."""
    shown = io.StringIO()
    keeper = CheckpointKeeper(run_dir / "checkpoints", CheckpointOptions(keep_last=1)) if keep else None
    options = read_watchdog({"stall_minutes": 1.0, **watchdog})
    Supervisor(run_dir, 10, options, keeper, Console(file=shown, width=200)).run(command)
    return shown.getvalue()


def test_a_good_run_is_copied_and_told_step_by_step(tmp_path: Path) -> None:
    figures = {"a": 2.0, "reward/score/mean": 0.25, "timing_s/step": 4.0, "val-aux/x/reward/mean@1": 0.5}
    script = f"print('hello', flush=True); time.sleep(0.2); step(1, a=1.0); step(2, **{figures})"
    shown = supervise(tmp_path, fake(script))
    log, *stages, first, second = shown.splitlines()
    assert log == f"log: {tmp_path}/train.log; curve and rollouts: medix report {tmp_path}"
    assert stages == ["0:00:00 starting Ray"]
    assert first == "0:00:00 step 1 of 10"
    assert second == "0:00:00 step 2 of 10, reward 0.250, 4.0 s, held-out reward 0.500, about 0:00:32 left"
    assert [row["data"]["a"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0]
    assert (tmp_path / "train.log").read_text() == "hello\n"


def test_a_second_attempt_appends_and_takes_over_what_a_killed_one_had_not_copied(tmp_path: Path) -> None:
    """Found in tests/engine/test_kill_drills.py: `medix train` was killed within a moment of a step's end."""
    supervise(tmp_path, fake("step(1, a=1.0); step(2, a=2.0)"))
    metrics = tmp_path / "metrics.jsonl"
    first, second = metrics.read_text().splitlines()
    metrics.write_text(first + "\n" + second[:9])
    supervise(tmp_path, fake("step(2, a=20.0); step(3, a=3.0)"))
    assert [path.name for path in sorted((tmp_path / "attempts").iterdir())] == ["000.jsonl", "001.jsonl"]
    assert metrics.read_text().splitlines()[2] == second  # after the half line, and once
    assert len(metrics.read_text().splitlines()) == 5
    assert [row["data"]["a"] for row in read_metrics(metrics)] == [1.0, 20.0, 3.0]


LOW = f"{{'{PEARSON}': 0.5}}"
DEAD = "(vLLMHttpServer pid=7) WARNING [shutdown] MPClient: engine core exited unexpectedly; starting cleanup"
WARNED = "print('UserWarning: ImportError', flush=True); "
# What a driver does, the watchdog's settings, what the error and the log's last line say, the step in stop_reason.json.
ENDS: dict[str, tuple[str, dict[str, float], str, int | None]] = {
    "it fails": (
        "print('noise\\n' * 100); print('(Worker pid=7) ScorerError: no judge'); sys.exit(3)",
        {},
        r"^veRL ended with exit code 3:\s+ScorerError: no judge (?!.*noise).*Read .*train\.log",
        None,
    ),
    "killed": (WARNED + "os.kill(os.getpid(), 9)", {}, r"SIGKILL \(kill -9, or the kernel was out of memory\)", None),
    "aborted": (WARNED + "os.kill(os.getpid(), 6)", {}, "SIGABRT:", None),
    "a guard": (
        f"step(3, **{LOW}); time.sleep(60)", {}, r"at step 3: rollout and actor probabilities correlate at 0\.5", 3
    ),
    # veRL logs by orjson, which writes NaN and infinities as null.
    "null": ("step(1, **{'actor/grad_norm': None}); time.sleep(60)", {"nonfinite_steps": 1}, "grad_norm is nan", 1),
    "silence": (
        "print('waiting for the judge', flush=True); time.sleep(60)",
        {"stall_minutes": 0.03},
        r"for 0\.03 minutes; last lines of the log:\s+waiting for the judge",
        None,
    ),
    # It died between two generations: the weight sync waits for ever, and nothing fails.
    "a dead engine": (
        f"step(1, a=1.0); print({DEAD!r}, flush=True); time.sleep(60)", {}, "^A rollout engine died: WARNING", None
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "options", "says", "step"), ENDS.values(), ids=ENDS)
def test_how_a_run_ends_is_said_and_written_down(
    script: str,
    options: dict[str, float],
    says: str,
    step: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "ENGINE_GRACE_S", 0.3)
    with pytest.raises(TrainingGuardError, match="OldError"):
        supervise(tmp_path, fake("print('OldError: of an earlier attempt'); sys.exit(1)"))
    start = time.monotonic()
    with pytest.raises(TrainingGuardError) as caught:
        supervise(tmp_path, fake(script), **options)
    assert time.monotonic() - start < 20
    assert re.search(says, " ".join(str(caught.value).split()))
    assert "OldError" not in caught.value.problem
    last = (tmp_path / "train.log").read_text().splitlines()[-1]
    assert last.startswith("STOPPED: " + " ".join(caught.value.problem.split())[:40])
    reason = json.loads((tmp_path / "stop_reason.json").read_text())
    assert (reason["step"], reason["checkpoint"]) == (step, None)
    supervise(tmp_path, fake("print('mended')"))
    assert not (tmp_path / "stop_reason.json").exists()  # a run that goes on is not a stopped one


def test_a_warning_is_shown_and_the_run_goes_on(tmp_path: Path) -> None:
    shown = supervise(tmp_path, fake(f"step(1, **{{'{PEARSON}': 0.995}}); step(2, a=1.0)"))
    assert "warning, step 1" in shown
    (finding,) = [json.loads(text) for text in (tmp_path / "guards.jsonl").read_text().splitlines()]
    assert (finding["level"], finding["step"]) == ("warn", 1)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


# What the driver does with MedixCheckpointCallback: once the request is there, the step under way is saved and logged.
FAKE_SAVING_TRAINER = """
def save(number):
    os.makedirs(f"checkpoints/global_step_{number}")
    open(f"checkpoints/global_step_{number}/data.pt", "w").close()
    open("checkpoints/latest_checkpointed_iteration.txt", "w").write(str(number))
save(1)
step(1, **{"val-aux/x/reward/mean@1": 0.7})
step(2, **{"training/rollout_actor_probs_pearson_corr": 0.5})
while not os.path.exists("stop_request.json"): time.sleep(0.02)
"""


def test_a_stopped_run_is_saved_first_and_says_where_it_resumes(tmp_path: Path) -> None:
    with pytest.raises(TrainingGuardError, match=r"resumes from .*global_step_3") as caught:
        supervise(tmp_path, fake(FAKE_SAVING_TRAINER + "save(3); step(3)"), keep=True)
    assert "at step 2" in caught.value.problem
    reason = json.loads((tmp_path / "stop_reason.json").read_text())
    assert reason["checkpoint"] == str(tmp_path / "checkpoints/global_step_3")
    assert "Checkpoint: " + reason["checkpoint"] in (tmp_path / "train.log").read_text().splitlines()[-1]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    # keep_last=1, and step 1 is the only one that was validated.
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("global_*")) == [
        "global_step_1",
        "global_step_3",
    ]
    assert json.loads((tmp_path / "checkpoints/best.json").read_text())["step"] == 1


def test_weights_that_may_be_broken_are_not_saved_over_a_good_checkpoint(tmp_path: Path) -> None:
    script = FAKE_SAVING_TRAINER.replace('probs_pearson_corr": 0.5', 'x": 1, "actor/grad_norm": None')
    with pytest.raises(TrainingGuardError, match=r"grad_norm is nan.*resumes from .*global_step_1"):
        supervise(tmp_path, fake(script), keep=True, nonfinite_steps=1)
    assert not (tmp_path / "stop_request.json").exists()


@pytest.mark.parametrize(
    "limit", [{"save_minutes": 0.005}, {"stall_minutes": 0.04}], ids=["time to save is over", "it is silent"]
)
def test_a_driver_that_hangs_instead_of_saving_is_ended_and_the_last_checkpoint_is_named(
    limit: dict[str, float], tmp_path: Path
) -> None:
    start = time.monotonic()
    with pytest.raises(TrainingGuardError, match=r"at step 2.*resumes from .*global_step_1"):
        supervise(tmp_path, fake(FAKE_SAVING_TRAINER + "time.sleep(60)"), keep=True, **limit)
    assert time.monotonic() - start < 20
    assert json.loads((tmp_path / "stop_reason.json").read_text())["step"] == 2


def test_the_last_step_is_validated_after_its_save_and_can_still_be_best(tmp_path: Path) -> None:
    script = FAKE_SAVING_TRAINER.split("step(2")[0] + "save(2); step(2, **{'val-aux/x/reward/mean@1': 0.8})"
    supervise(tmp_path, fake(script), keep=True)
    best = json.loads((tmp_path / "checkpoints/best.json").read_text())
    assert (best["step"], best["value"]) == (2, 0.8)
    assert [path.name for path in (tmp_path / "checkpoints").glob("global_*")] == ["global_step_2"]


def test_before_it_ends_a_quiet_run_is_warned_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    supervisor = Supervisor(tmp_path, 10, read_watchdog({"stall_minutes": 0.02}), console=Console(file=shown))
    with pytest.raises(TrainingGuardError, match=r"for 0\.02 minutes"):
        supervisor.run(fake("time.sleep(60)"))
    assert shown.getvalue().count("no response scored and no step logged") == 1


def test_scored_responses_are_a_sign_of_life(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    script = "\n".join(
        ["for _ in range(25):", "    open('rollouts/scored.jsonl', 'a').write('x')", "    time.sleep(0.1)"]
    )
    supervise(tmp_path, fake(script), stall_minutes=1.5 / 60)  # 2.5 s of work, each pause a fifteenth of it


def test_an_engine_that_dies_at_the_end_or_died_in_an_earlier_attempt_is_nobody_s_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(tmp_path, fake(f"step(1, a=1.0); print({DEAD!r}, flush=True); time.sleep(0.2)"))
    monkeypatch.setattr(watch, "ENGINE_GRACE_S", 0.1)
    supervise(tmp_path, fake("step(2, a=1.0); time.sleep(0.5)"))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(ConfigError, match="Another run is at work"):
        supervise(tmp_path, fake("step(1, a=1.0)"))
    assert not (tmp_path / "attempts").exists()


def of(speaker: str, *lines: str) -> list[str]:
    return [f"\x1b[36m({speaker} pid=18747)\x1b[0m {line}" for line in lines]


DIED = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task."
BLOCK = [
    *of("AgentLoopWorkerTQ", DIED, "\tclass_name: RewardLoopWorker", "\tactor_id: 77ab"),
    *of("AgentLoopWorkerTQ", "ERROR:2026-11-22 20:52:09,750:Error in _run_prompt for uid=1d83"),
]
LAST = "medix.errors.TrainingGuardError: A response could not be scored."
# The lines are from real logs, shortened: what Ray, vLLM and veRL wrote, and what of it says why the run ended.
LOGS: dict[str, tuple[list[str], list[str]]] = {
    "a dead actor, often missed": (
        [*BLOCK * 12, "Error executing job with overrides: ['a=b']", LAST],
        [DIED, "\tclass_name: RewardLoopWorker", LAST],
    ),
    "the last saying counts": (
        ["EngineDeadError: x", "ValueError: y", "EngineDeadError: x"],
        ["ValueError: y", "EngineDeadError: x"],
    ),
    "noise": (
        [
            'UserWarning: veomni engine is not available: ModuleNotFoundError("No module")',
            "Traceback (most recent call last): Error",
            "2026-11-22 - WARNING - an Error that was mended",
            "RuntimeError: real",
        ],
        ["RuntimeError: real"],
    ),
    "no error": ([f"line {number}" for number in range(50)], [f"line {number}" for number in range(35, 50)]),
    "veRL's line of all metrics": (["step:1 - " + "a" * 5000], ["step:1 - " + "a" * 291]),
}


@pytest.mark.parametrize(("lines", "told"), LOGS.values(), ids=LOGS)
def test_the_lines_that_say_why_it_ended(lines: list[str], told: list[str], tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("ImportError: of an earlier attempt\n" + "\n".join(lines) + "\n")
    assert module.why_it_ended(log, len("ImportError: of an earlier attempt\n")).splitlines() == told
