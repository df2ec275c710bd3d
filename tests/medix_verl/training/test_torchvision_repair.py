"""The torchvision repair: it acts on one fault only, and its hook declares before torchvision is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medix.errors import ConfigError
from medix_verl import torchvision_repair
from medix_verl.torchvision_repair import HOOK_NAME, repair

MISSING = "RuntimeError: operator torchvision::nms does not exist"

FAKE_TORCH = """
class FakeLibrary:
    def __init__(self, *args): print("library", *args)
    def define(self, text): print("define", text.split("(")[0])
class library:
    Library = FakeLibrary
"""


def found_in_turn(monkeypatch: pytest.MonkeyPatch, *errors: str | None) -> None:
    outcomes = iter(errors)
    monkeypatch.setattr(torchvision_repair, "torchvision_error", lambda: next(outcomes))


@pytest.mark.parametrize(
    ("errors", "says"),
    [
        ([None], "nothing to repair"),
        (["ModuleNotFoundError: No module named 'torchvision'"], "No module named"),
        ([MISSING, MISSING], "after the repair"),
    ],
    ids=["sound", "another fault is not papered over", "the repair does not help"],
)
def test_it_acts_on_one_fault_only(
    errors: list[str | None], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_in_turn(monkeypatch, *errors)
    if errors == [None]:
        assert says in repair(tmp_path)
    else:
        with pytest.raises(ConfigError, match=says):
            repair(tmp_path)
    assert bool(list(tmp_path.iterdir())) == (errors[0] == MISSING)


def test_the_hook_declares_both_operators_just_before_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_in_turn(monkeypatch, MISSING, None)
    assert "repaired" in repair(tmp_path)
    assert (tmp_path / f"{HOOK_NAME}.pth").read_text() == f"import {HOOK_NAME}\n"
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    (tmp_path / "torchvision.py").write_text("print('torchvision imported')\n")
    # A .pth file acts in a site folder; addsitedir treats this one as such.
    code = f"import site; site.addsitedir({str(tmp_path)!r}); print('started'); import torchvision"
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == [
        "started",  # nothing is imported at the start of a process that never needs torchvision
        "library torchvision FRAGMENT",
        "define nms",
        "define qnms",
        "torchvision imported",
    ], run.stderr


def test_the_fault_is_looked_for_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bare_python = tmp_path / "python"  # without site-packages, where a real hook may stand
    bare_python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare_python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare_python))
    assert torchvision_repair.torchvision_error() == MISSING
    (tmp_path / "torchvision.py").write_text("")
    assert torchvision_repair.torchvision_error() is None
