"""Every command of the README is run: `make` targets by CI, the other shell blocks here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
MAKE_TARGETS = {"make demo", "make test"}


def run(command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )


def test_the_readme_has_the_two_commands() -> None:
    assert set(COMMANDS) >= MAKE_TARGETS


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in MAKE_TARGETS])
def test_a_readme_command_works(command: str) -> None:
    finished = run(command)
    assert finished.returncode == 0, finished.stderr


def test_make_demo_is_the_recipe_that_the_engine_tests_run() -> None:
    planned = run("make -n demo").stdout
    assert "bash recipes/medix/run_cpu.sh" in planned


def test_the_readme_names_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
