"""No process of a run is left behind: after Ctrl-C, after a good end, after an attempt that was killed."""

from __future__ import annotations

import functools
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from medix.processes import (
    RUN_MARK,
    end_processes,
    mark_of,
    processes_of,
)
from medix_verl.training import supervisor as module
from medix_verl.training.checkpoints import CheckpointKeeper, CheckpointOptions
from medix_verl.training.supervisor import Interrupted, Supervisor
from medix_verl.training.watch import read_watchdog

pytestmark = pytest.mark.slow  # each starts processes and waits for them

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


def supervise(run_dir: Path, script: str, keeper: CheckpointKeeper | None = None, **watchdog: float) -> None:
    command = [sys.executable, "-S", "-c", script]
    options = read_watchdog({"stall_minutes": 1.0, **watchdog})
    Supervisor(run_dir, 10, options, keeper, Console(file=io.StringIO())).run(command)


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


def test_what_a_killed_attempt_left_is_ended_by_the_next(tmp_path: Path) -> None:
    left = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"], env={**os.environ, RUN_MARK: mark_of(tmp_path)}
    )
    supervise(tmp_path, "")
    assert not alive(left.pid)
    left.wait(5)


@pytest.mark.parametrize("pauses_s", [(), (0.3,)], ids=["once", "twice, from an impatient user"])
def test_ctrl_c_leaves_no_process_of_the_run(pauses_s: tuple[float, ...], tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    sender = interrupt_when_family_is_there(*pauses_s)
    with pytest.raises(Interrupted, match="SIGINT"):
        supervise(tmp_path, FAKE_STUBBORN_FAMILY)
    sender.join(5)
    parent, child, mark = Path("family").read_text().split()
    assert processes_of(mark) == []
    assert not any(alive(int(pid)) for pid in (parent, child))
    assert signal.getsignal(signal.SIGINT) is handler


# Two steps are trained and one is saved; then it does what a real driver does with the request, or hangs.
FAKE_DRIVER = """
import json, os, time
log = open(os.environ["VERL_FILE_LOGGER_PATH"], "wb", buffering=0)
def step(number):
    log.write(json.dumps({"step": number, "data": {}}).encode() + b"\\n")
def save(number):
    os.makedirs(f"checkpoints/global_step_{number}")
    open(f"checkpoints/global_step_{number}/data.pt", "w").close()
    open("checkpoints/latest_checkpointed_iteration.txt", "w").write(str(number))
save(1); step(1)
"""
WAIT = "while not os.path.exists('stop_request.json'): time.sleep(0.02)\n"
TERMINATED: dict[str, tuple[str, dict[str, float], int, int]] = {
    # script after step 1, options, signals, the step from which a resume goes on
    "the step under way is saved": (f"step(2)\n{WAIT}save(3); step(3)", {}, 1, 3),
    "its step is too long": ("step(2); time.sleep(60)", {"term_minutes": 0.01}, 1, 1),
    "the sender is impatient": ("step(2); time.sleep(60)", {}, 2, 1),
    "nothing is lost without a save": ("time.sleep(60)", {}, 1, 1),
    "no save is wanted": ("step(2); time.sleep(60)", {"term_minutes": 0}, 1, 1),
}


@pytest.mark.parametrize(("script", "options", "signals", "resumes"), TERMINATED.values(), ids=TERMINATED)
def test_sigterm_saves_what_would_be_lost_and_ends_the_run(
    script: str, options: dict[str, float], signals: int, resumes: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As Slurm sends it before the end of a job. It used to lose every step since the last checkpoint."""
    keeper, last = CheckpointKeeper(tmp_path / "checkpoints", CheckpointOptions()), 2 if "step(2)" in script else 1
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one that comes too late must not end the tests
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, previous))

    def send() -> None:
        while f'"step": {last}' not in (text_of(tmp_path / "metrics.jsonl")):
            time.sleep(0.02)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)

    start = time.monotonic()
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        supervise(tmp_path, FAKE_DRIVER + script, keeper, **options)
    sender.join(5)
    assert time.monotonic() - start < 20
    assert keeper.latest() == resumes
    assert processes_of(mark_of(tmp_path)) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_daemon_that_outlives_a_good_run_is_ended(tmp_path: Path) -> None:
    script = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    supervise(tmp_path, script)
    assert not alive(int((tmp_path / "train.log").read_text()))


def test_a_worker_that_wrote_over_its_environment_is_ended_with_its_session(tmp_path: Path) -> None:
    """As Ray's agents do with their titles; they outlived the run by half a minute."""
    script = "import subprocess; print(subprocess.Popen(['sleep', '60'], env={}).pid, flush=True); input()"
    driver = subprocess.Popen(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, RUN_MARK: mark_of(tmp_path)},
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    assert end_processes(mark_of(tmp_path), grace_s=1.0) == 2
    assert not alive(worker)
    driver.communicate(timeout=5)


def test_ending_looks_at_the_mark_only() -> None:
    assert end_processes("no process carries this mark") == 0
