"""Ctrl-C in the middle of `make demo`'s script: everything that it started ends, and the same command goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.engine.conftest import RECIPE, ROOT, TIMEOUT_S

pytestmark = [pytest.mark.engine, pytest.mark.timeout(TIMEOUT_S)]

START_LIMIT_S, END_LIMIT_S = 300, 60


def processes_of(run: Path) -> list[str]:
    """The command lines of every live process that inherited this run's knob, Ray's and vLLM's among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RUN") == str(run) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:80])
        except (psutil.Error, OSError):
            continue
    return found


def test_ctrl_c_leaves_no_process(two_rank_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    knobs = {"RUN": str(run), "MODEL": f"{two_rank_run}/tiny-vlm", "DATA": f"{two_rank_run}/data", "STEPS": "50"}
    process = subprocess.Popen(
        [*RECIPE, "trainer.val_before_train=false"],
        cwd=ROOT,
        env={**os.environ, **knobs},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives to a command
    )
    scored, limit = run / "rollouts" / "scored.jsonl", time.monotonic() + START_LIMIT_S
    while not (scored.exists() and scored.stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, f"no response scored within {START_LIMIT_S} s"
        time.sleep(0.1)
    running = processes_of(run)
    assert any("ray::WorkerDict" in line for line in running), running
    assert any("rule-judge" in line for line in running), running

    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=END_LIMIT_S)
    assert process.returncode == 130, said
    assert "stopped by SIGINT; every process of the run has ended" in said
    limit = time.monotonic() + 10  # the judge sees within a moment that its parent has gone
    while (left := processes_of(run)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert left == []
