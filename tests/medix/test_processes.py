"""How a Python child is started: nothing of the working directory is imported, and vLLM gets what a CPU needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medix.processes import child_environment, python_command, vllm_environment

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("medix", "reward_fns", "data_prep", "evaluation", "medix_verl")


def test_every_file_that_starts_python_does_it_safely() -> None:
    """Each names `-P` or gives the child `child_environment()`."""
    starts = {path: path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    files = [path for path, text in starts.items() if "[sys.executable" in text]
    assert files
    assert [path for path in files if '"-P"' not in starts[path] and "child_environment(" not in starts[path]] == []


@pytest.mark.parametrize("path", ["", "{root}:", ":{root}", "{root}::"])
def test_a_module_in_the_working_directory_is_not_imported(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cd RUN; medix export .` ran a `transformers.py` that lay there; an empty entry of PYTHONPATH means it too."""
    (tmp_path / "planted.py").write_text("open('executed', 'w')")
    monkeypatch.setenv("PYTHONPATH", path.format(root="/usr/share"))
    for command in (python_command("planted"), [sys.executable, "-c", "import planted"]):
        subprocess.run(command, cwd=tmp_path, env=child_environment(), capture_output=True, timeout=60)
    assert not (tmp_path / "executed").exists()


def test_a_child_gets_the_environment_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    environment = child_environment(HF_TOKEN=None, HF_HUB_OFFLINE="1")
    assert ("HF_TOKEN" in environment, environment["HF_HUB_OFFLINE"], environment["PYTHONSAFEPATH"]) == (
        False,
        "1",
        "1",
    )


def test_vllm_gets_its_settings_for_a_cpu_unless_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: False)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    assert vllm_environment()["VLLM_CPU_KVCACHE_SPACE"] == "8"
    assert vllm_environment()["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    monkeypatch.setattr("os.path.exists", lambda path: True)
    assert vllm_environment() == {}
