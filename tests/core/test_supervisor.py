"""The supervisor against small processes that stand for veRL: it reports why they end, and leaves none behind."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from medix.errors import TrainingGuardError
from medix.supervise import supervisor as module
from medix.supervise.guards import PEARSON
from medix.supervise.metrics_file import read_metrics
from medix.supervise.processes import end_processes, processes_of
from medix.supervise.supervisor import Interrupted, Supervisor

# What veRL's file logger does: it empties its file, then writes a line a step; NaN becomes null.
FAKE_TRAINER = """
import json, os, signal, subprocess, sys, time
log = open(os.environ["VERL_FILE_LOGGER_PATH"], "wb", buffering=0)
def step(number, **data):
    log.write(json.dumps({"step": number, "data": data}).encode() + b"\\n")
"""

# Starts a grandchild in a session of its own, as Ray and vLLM do, and writes down both process ids and the run's mark.
FAKE_STUBBORN_FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
with open("family.tmp", "w") as file:
    print(os.getpid(), child.pid, os.environ["MEDIX_RUN_MARK"], file=file)
os.rename("family.tmp", "family")
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "end_processes", functools.partial(end_processes, grace_s=1.0))
    monkeypatch.chdir(tmp_path)


def fake(script: str) -> list[str]:
    return [sys.executable, "-S", "-c", FAKE_TRAINER + script]


def supervise(run_dir: Path, command: list[str], stall_minutes: float = 1.0) -> str:
    """Run the command under watch; returns what was shown on a stderr that is no terminal."""
    shown = io.StringIO()
    Supervisor(run_dir, 10, stall_minutes, console=Console(file=shown)).run(command)
    return shown.getvalue()


def test_a_good_run_is_copied_and_quiet(tmp_path: Path) -> None:
    shown = supervise(tmp_path, fake("print('hello'); step(1, a=1.0); step(2, a=2.0)"))
    assert shown == ""
    assert [row["data"]["a"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0]
    assert (tmp_path / "train.log").read_text() == "hello\n"


def test_a_second_attempt_appends(tmp_path: Path) -> None:
    supervise(tmp_path, fake("step(1, a=1.0); step(2, a=2.0)"))
    supervise(tmp_path, fake("step(2, a=20.0); step(3, a=3.0)"))
    assert [path.name for path in sorted((tmp_path / "attempts").iterdir())] == ["000.jsonl", "001.jsonl"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
    assert [row["data"]["a"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 20.0, 3.0]


def test_a_line_that_an_earlier_kill_left_half_written_costs_no_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {}}\n{"step": 2, "da')
    supervise(tmp_path, fake("step(2, a=2.0); step(3, a=3.0)"))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_a_failing_command_surfaces_its_error_lines(tmp_path: Path) -> None:
    script = "print('noise\\n' * 100); print('(Worker pid=7) ScorerError: expected a judge; found none'); sys.exit(3)"
    with pytest.raises(TrainingGuardError) as caught:
        supervise(tmp_path, fake(script))
    assert "exit code 3" in caught.value.found
    assert "ScorerError: expected a judge" in caught.value.found
    assert "noise" not in caught.value.found
    assert str(tmp_path / "train.log") in caught.value.fix


def test_errors_of_an_earlier_attempt_are_not_blamed(tmp_path: Path) -> None:
    with pytest.raises(TrainingGuardError, match="OldError"):
        supervise(tmp_path, fake("print('OldError: long mended'); sys.exit(1)"))
    with pytest.raises(TrainingGuardError, match="Killed by the kernel") as caught:
        supervise(tmp_path, fake("print('Killed by the kernel'); sys.exit(137)"))
    assert "OldError" not in caught.value.found


def test_a_guard_stops_the_run_and_the_reason_is_written_down(tmp_path: Path) -> None:
    script = f"step(1, **{{'{PEARSON}': 0.5}}); time.sleep(60)"
    start = time.monotonic()
    with pytest.raises(TrainingGuardError, match=r"at step 1: rollout and actor probabilities correlate at 0\.5"):
        supervise(tmp_path, fake(script))
    assert time.monotonic() - start < 20
    (finding,) = [json.loads(text) for text in (tmp_path / "guards.jsonl").read_text().splitlines()]
    assert (finding["level"], finding["step"]) == ("stop", 1)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1  # the step that it stopped at is recorded


def test_a_warning_is_shown_and_the_run_goes_on(tmp_path: Path) -> None:
    shown = supervise(tmp_path, fake(f"step(1, **{{'{PEARSON}': 0.995}}); step(2, a=1.0)"))
    assert "warning, step 1" in shown
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


@pytest.mark.parametrize("key", ["reward/score/mean", "actor/grad_norm"])
def test_a_figure_that_verl_logged_as_null_is_not_finite(key: str, tmp_path: Path) -> None:
    # veRL logs by orjson, which writes NaN and infinities as null.
    with pytest.raises(TrainingGuardError, match=f"{key} is nan"):
        supervise(tmp_path, fake(f"step(1, **{{'{key}': None, 'reward/score/std': None}}); time.sleep(60)"))
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_without_a_sign_of_life_is_ended(tmp_path: Path) -> None:
    with pytest.raises(TrainingGuardError, match=r"every 0\.01 minutes") as caught:
        supervise(tmp_path, fake("print('waiting for the judge', flush=True); time.sleep(60)"), stall_minutes=0.01)
    assert "waiting for the judge" in caught.value.found


def test_scored_responses_are_a_sign_of_life(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    script = "\n".join(
        ["for _ in range(12):", "    open('rollouts/scored.jsonl', 'a').write('x')", "    time.sleep(0.1)"]
    )
    supervise(tmp_path, fake(script), stall_minutes=0.6 / 60)  # 1.2 s of work, each pause a sixth of the limit


def alive(pid: int) -> bool:
    """Whether the process still runs; one that has ended but that nobody has waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def interrupt_when_family_is_there(*pauses_s: float) -> threading.Thread:
    """A thread that sends this process one SIGINT after the family has started, and one more after each pause."""

    def send() -> None:
        while not Path("family").exists():
            time.sleep(0.02)
        for pause_s in (0.0, *pauses_s):
            time.sleep(pause_s)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("pauses_s", [(), (0.3,)], ids=["once", "twice, from an impatient user"])
def test_ctrl_c_leaves_no_process_of_the_run(pauses_s: tuple[float, ...], tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    sender = interrupt_when_family_is_there(*pauses_s)
    with pytest.raises(Interrupted, match="SIGINT"):
        supervise(tmp_path, [sys.executable, "-S", "-c", FAKE_STUBBORN_FAMILY])
    sender.join(5)
    parent, child, mark = Path("family").read_text().split()
    assert processes_of(mark) == []
    assert not any(alive(int(pid)) for pid in (parent, child))
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_daemon_that_outlives_a_good_run_is_ended(tmp_path: Path) -> None:
    script = "child = subprocess.Popen(['sleep', '60'], start_new_session=True); print(child.pid)"
    supervise(tmp_path, fake(script))
    assert not alive(int((tmp_path / "train.log").read_text()))


def test_ending_looks_at_the_mark_only() -> None:
    assert end_processes("no process carries this mark") == 0
