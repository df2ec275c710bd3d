"""DAPO for two steps, then Ctrl-C in the middle of the third: everything that the recipe's script started ends.

One start of the engine serves both; GSPO trains in test_colocated_judge.py, LoRA in test_export_round_trip.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from medix.processes import is_alive
from medix_verl.training.metrics_file import read_metrics
from tests.engine.conftest import RECIPE, ROOT, SMALL, TIMEOUT_S

pytestmark = [pytest.mark.engine, pytest.mark.timeout(TIMEOUT_S)]

START_LIMIT_S, END_LIMIT_S = 500, 60


@dataclass
class Interrupted:
    """What was there before Ctrl-C, and after."""

    run: Path
    processes: list[psutil.Process]
    commands: list[str]
    exit_code: int
    said: str


def processes_of(run: Path) -> list[psutil.Process]:
    """Every live process that inherited this run's path, and those in the sessions of these.

    Ray's workers write their title over what they inherited, so of most of them only the session is known.
    """
    live = [process for process in psutil.process_iter() if is_alive(process.pid)]
    sessions = set()
    for process in live:
        with contextlib.suppress(psutil.Error, OSError):
            if str(run).encode() in Path(f"/proc/{process.pid}/environ").read_bytes():
                sessions.add(os.getsid(process.pid))
    found = []
    for process in live:
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) in sessions:
                found.append(process)
    return found


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def steps_of(run: Path) -> list[dict[str, float]]:
    return [row["data"] for row in read_metrics(run / "metrics.jsonl") if "timing_s/step" in row["data"]]


@pytest.fixture(scope="module")
def interrupted(two_rank_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    """From the first run's model and data, one rank."""
    run = tmp_path_factory.mktemp("interrupted") / "run"
    knobs = {"RUN": str(run), "MODEL": f"{two_rank_run}/tiny-vlm", "DATA": f"{two_rank_run}/data"}
    process = subprocess.Popen(
        [*RECIPE, *SMALL, "trainer.val_before_train=false"],
        cwd=ROOT,
        env={**os.environ, **knobs, "ALGO": "dapo", "STEPS": "50"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives to a command
    )
    try:
        limit = time.monotonic() + START_LIMIT_S
        while len(steps_of(run)) < 2:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < limit, f"no two steps within {START_LIMIT_S} s"
            time.sleep(0.2)
        processes = processes_of(run)
        commands = [command_of(process) for process in processes]
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=END_LIMIT_S)
        yield Interrupted(run, processes, commands, process.returncode, said)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)


def test_dapo_trained_on_groups_with_spread_only(interrupted: Interrupted) -> None:
    assert [step["reward/score/zero_std_group_fraction"] for step in steps_of(interrupted.run)[:2]] == [0.0, 0.0]


def test_ctrl_c_leaves_no_process(interrupted: Interrupted) -> None:
    for name in ("ray::WorkerDict", "rule-judge"):
        assert any(name in command for command in interrupted.commands), interrupted.commands
    assert interrupted.exit_code == 130, interrupted.said
    assert "stopped by SIGINT; every process of the run has ended" in interrupted.said

    def left() -> list[str]:
        known = [process for process in interrupted.processes if is_alive(process.pid) and process.is_running()]
        return [command_of(process) for process in {*known, *processes_of(interrupted.run)}]

    limit = time.monotonic() + 10  # the judge sees within a moment that its parent has gone
    while left() and time.monotonic() < limit:
        time.sleep(0.1)
    assert left() == []
