"""For real: the memory of `medix export` on a checkpoint of 2 GB, proofs and all, and `--check-vllm`.

Minutes; `make test-drill`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from tests.engine.drills import ROOT, model_and_data, shell

LIMIT_S, ANSWER_TOKENS = 900, 32
pytestmark = [pytest.mark.drill, pytest.mark.timeout(2 * LIMIT_S)]

TIME = Path("/usr/bin/time")
BOUND = 1.3
LAYERS = 15
"""Of 35 million parameters each in float32, with the tiny model's vocabulary: 2.07 GB."""


def benchmark() -> ModuleType:
    """`benchmarks/export.py`, which is no package."""
    spec = importlib.util.spec_from_file_location("export_benchmark", ROOT / "benchmarks" / "export.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not TIME.is_file():
        pytest.skip("/usr/bin/time is not there: apt-get install time")
    return model_and_data(tmp_path_factory.mktemp("ground")) / "tiny-vlm"


def tree_pss(pid: int) -> int:
    """Bytes of a process and its descendants, a shared page counted once."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def run_on_a_terminal(command: list[str]) -> tuple[str, int]:
    """(what a terminal showed of stderr, largest `tree_pss`); the progress bar is for terminals only."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                shown.append(chunk)
        except OSError:  # what Linux says when the last writer is gone
            return

    reader = threading.Thread(target=read)
    reader.start()
    largest, end = 0, time.monotonic() + LIMIT_S
    try:
        while process.poll() is None and time.monotonic() < end:
            largest = max(largest, tree_pss(process.pid))
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # so that the export ends its own children
        process.wait(60)
        reader.join(10)
        os.close(ours)
    text = b"".join(shown).decode(errors="replace")
    assert process.returncode == 0, text[-3000:]
    return text, largest


@pytest.mark.parametrize("ranks", [1, 2])
def test_two_gigabytes_export_within_the_bound(ranks: int, tiny: Path, tmp_path: Path) -> None:
    """The bound is on the largest process, as /usr/bin/time has it; the sum of all is told beside it."""
    actor, out = tmp_path / "run" / "checkpoints" / "global_step_1" / "actor", tmp_path / "out"
    benchmark().write_checkpoint(actor, ranks, LAYERS, tiny)
    # Random weights never end an answer, and its length does not change the peak.
    (tmp_path / "run" / "config.yaml").write_text(f"data: {{max_response_length: {ANSWER_TOKENS}}}")
    medix = [str(Path(sys.executable).with_name("medix")), "export", str(actor), "--out", str(out)]
    measured = tmp_path / "time.txt"
    started = time.monotonic()
    shown, pss = run_on_a_terminal(
        [str(TIME), "-v", "-o", str(measured), *medix, "--base", str(tiny), "--dtype", "fp32"]
    )
    seconds = time.monotonic() - started
    found = re.search(r"Maximum resident set size \(kbytes\): (\d+)", measured.read_text())
    assert found is not None
    weights = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    rss = int(found[1]) * 1024
    print(
        f"{ranks} rank(s), {weights / 1e9:.2f} GB: largest process {rss / weights:.2f}, all processes "
        f"{pss / weights:.2f} times the weights, {seconds:.0f} s"
    )
    assert weights > 2e9
    assert rss < BOUND * weights
    record = json.loads((out / "export.json").read_text())["checks"]["behaviour"]
    assert record["skipped"].keys() == {"vLLM"}  # every proof was made
    assert record["sharded_model"]["largest_difference"] <= 1e-3
    percentages = {int(value) for value in re.findall(r"(\d+)%", shown)}
    assert len(percentages) > 10, shown[-3000:]  # the weights' progress, as a terminal shows it
    assert "checking: behaviour" in shown
    shutil.rmtree(tmp_path)


def test_vllm_answers_as_the_exported_folder_does(tiny: Path, tmp_path: Path) -> None:
    """`--check-vllm` for real, on the tiny model as FSDP1 saves it on one rank: plain tensors."""
    import torch
    from transformers import AutoModelForImageTextToText

    actor, out = tmp_path / "global_step_1" / "actor", tmp_path / "out"
    shutil.copytree(tiny, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForImageTextToText.from_pretrained(tiny, dtype=torch.float32)
    torch.save(model.state_dict(), actor / "model_world_size_1_rank_0.pt")
    started = time.monotonic()
    process = shell(f"medix export {actor} --out {out} --base {tiny} --check-vllm", tmp_path / "log")
    assert process.wait(LIMIT_S) == 0, (tmp_path / "log").read_text()[-3000:]
    record = json.loads((out / "export.json").read_text())["checks"]["behaviour"]
    print(f"{time.monotonic() - started:.0f} s: {record['vllm']}")
    assert record["skipped"] == {}
    assert record["vllm"]["dtype"] == "float32"
    for name in ("text", "image"):
        assert record["vllm"][name]["tokens"] == record["generations"][name]["tokens"] > 0
