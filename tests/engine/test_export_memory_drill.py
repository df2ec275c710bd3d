"""For real: the memory of `medix export` on a checkpoint of 2 GB, `--check-vllm`, and the card's two snippets.

Minutes; `make test-drill`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.drills import ROOT, model_and_data

LIMIT_S = 900
pytestmark = [pytest.mark.drill, pytest.mark.timeout(2 * LIMIT_S)]
BOUND = 1.3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_data(tmp_path_factory.mktemp("tiny")) / "tiny-vlm"


@pytest.mark.parametrize("ranks", [1, 2])
def test_two_gigabytes_export_within_the_bound(ranks: int, tiny: Path) -> None:
    command = [sys.executable, "benchmarks/export.py", "--only", "ours", "--ranks", str(ranks), "--like", str(tiny)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(finished.stdout)["medix export"]
    print(f"{ranks} rank(s): {found}")
    assert found["weights_bytes"] > 2e9
    assert found["ratio"] < BOUND


@pytest.fixture(scope="module")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as FSDP1 saves it on one rank, plain tensors, exported with `--check-vllm`."""
    import torch
    from transformers import AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("export")
    actor, out = folder / "global_step_1" / "actor", folder / "out"
    shutil.copytree(tiny, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForImageTextToText.from_pretrained(tiny, dtype=torch.float32)
    torch.save(model.state_dict(), actor / "model_world_size_1_rank_0.pt")
    medix = str(Path(sys.executable).with_name("medix"))
    command = [medix, "export", str(actor), "--out", str(out), "--base", str(tiny), "--check-vllm"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return out


def test_vllm_answers_as_the_exported_folder_does(exported: Path) -> None:
    record = json.loads((exported / "export.json").read_text())
    assert {name: answer["tokens"] for name, answer in record["generations"].items()} == record["vllm"]["same"]


def test_the_snippets_of_the_card_run(exported: Path) -> None:
    """As a reader pastes them, in the exported folder, with a picture beside it."""
    shutil.copy(ROOT / "examples/sample_data/images/test_x_ray_000.jpg", exported / "image.jpg")
    transformers, vllm = re.findall("```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    common = transformers[: transformers.index("messages = ")]
    # On a machine without a GPU, vLLM takes float32 and these settings.
    vllm = vllm.replace("LLM(MODEL,", 'LLM(MODEL, dtype="float32", enforce_eager=True, max_num_seqs=2,')
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    answer = json.loads((exported / "export.json").read_text())["generations"]["image"]["answer"]
    for code in (transformers, common + vllm):
        finished = subprocess.run(
            [sys.executable, "-c", code], cwd=exported, env=os.environ | settings, capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
        assert answer in finished.stdout
