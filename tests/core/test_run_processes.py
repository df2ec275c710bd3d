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

from medix.supervise import supervisor as module
from medix.supervise.processes import RUN_MARK, end_processes, mark_of, processes_of
from medix.supervise.supervisor import Interrupted, Supervisor
from medix.supervise.watchdog import read_watchdog

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


def supervise(run_dir: Path, script: str) -> None:
    command = [sys.executable, "-S", "-c", script]
    Supervisor(run_dir, 10, read_watchdog({"stall_minutes": 1.0}), None, Console(file=io.StringIO())).run(command)


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
