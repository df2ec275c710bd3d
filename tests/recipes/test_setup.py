"""The set-up scripts with stand-ins for Python, pip and nvcc: what is refused before anything, and what is shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.recipes.checkout import ROOT, Checkout

pytestmark = pytest.mark.slow
FAKE_PYTHON = """#!/usr/bin/env bash
echo "python $*" >>"$CALLS"
case $* in
  *'"cp%d%d"'*) echo cp312 ;;
  *flash_attn_2_cuda*) if [[ $* != *- ]]; then exit 1; fi ;;
  *--editable*) echo "archs ${FLASH_ATTN_CUDA_ARCHS:-}" >>"$CALLS"; sleep "${SLOW:-0}" ;;
esac
"""
NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release {}, V{}.88'\n"


@pytest.fixture
def machine(tmp_path: Path) -> Checkout:
    """A clone with a virtual environment that only writes down what it is asked for."""
    root, commands = tmp_path / "clone", tmp_path / "bin"
    for folder in (commands, root / ".venv/bin"):
        folder.mkdir(parents=True)
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copy(ROOT / "setup.py", root)
    checkout = Checkout(root, commands)
    checkout.fake("python3.12", FAKE_PYTHON)
    shutil.copy(commands / "python3.12", root / ".venv/bin/python")
    checkout.fake("nvidia-smi", "#!/bin/sh\nprintf '9.0\\n9.0\\n'\n")
    return checkout


def set_up(machine: Checkout, **variables: str) -> tuple[int, str, str]:
    safe = {"PATH": f"{machine.commands}:/usr/bin:/bin", "CUDA_HOME": "/nowhere", **variables}
    ended = machine.run("setup_gpu.sh", **safe)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(("nvcc", "found"), [(None, "there is none"), ("12.8", "there is that of CUDA 12")])
def test_an_nvcc_that_can_not_compile_flash_attn_is_told_before_anything_is_installed(
    machine: Checkout, nvcc: str | None, found: str
) -> None:
    if nvcc:
        machine.fake("nvcc", NVCC.format(nvcc, nvcc))
    code, _, said = set_up(machine)
    assert (code, found in said) == (2, True)
    for remedy in ("CUDA 13.0 toolkit", "FLASH_ATTN_WHEEL=https://github.com/", "cp312-cp312-linux", "FLASH_ATTN=0"):
        assert remedy in said
    assert not [call for call in machine.calls() if "pip" in call]


def test_it_compiles_for_this_machines_cards_only_and_says_how_long(machine: Checkout) -> None:
    machine.fake("nvcc", NVCC.format("13.0", "13.0"))
    code, said, _ = set_up(machine)
    assert code == 0
    assert "compiling flash-attn for 90 with" in said
    assert "15 to 60 minutes" in said
    pip = installed(machine)
    assert [call for call in pip if call.startswith("torch==")] == ["torch==2.11.0"]
    assert "--verbose --no-build-isolation flash-attn==2.8.3" in pip
    assert pip[-1] == "--editable .[gpu,eval,dicom,loggers,dev]"


def installed(machine: Checkout) -> list[str]:
    return [call.split("pip install ")[1] for call in machine.calls() if "pip install" in call]


def test_a_ready_wheel_needs_no_compiler_and_the_lock_file_holds_the_rest(machine: Checkout) -> None:
    code, said, _ = set_up(machine, FLASH_ATTN_WHEEL="/wheels/flash_attn.whl", LOCKED="1")
    assert (code, "compiling" in said) == (0, False)
    assert "--no-deps /wheels/flash_attn.whl" in installed(machine)
    assert installed(machine)[-1] == "--constraint recipes/medix/gpu.lock --editable .[gpu,eval,dicom,loggers]"


def test_without_flash_attn_everything_else_is_installed(machine: Checkout) -> None:
    code, _, _ = set_up(machine, FLASH_ATTN="0")
    assert (code, "flash-attn" in " ".join(installed(machine))) == (0, False)
    for pin in ("vllm==0.24.0", "verl==0.9.1", "TransferQueue==0.1.11", "torchao==0.17.0"):
        assert pin in installed(machine)[-1]


def test_a_long_installation_says_that_it_goes_on(machine: Checkout) -> None:
    """238 of 331 s showed nothing."""
    _, said, _ = set_up(machine, FLASH_ATTN="0", SLOW="2.5", TICK_S="1")
    assert "installing veRL, vLLM and this project\n  ... veRL, vLLM and this project, 1 s" in said
