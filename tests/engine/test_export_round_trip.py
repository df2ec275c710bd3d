"""Export for real: sharded checkpoints back to the living model's weights, and to the trainer's own answers.

Minutes each. Run by `make test` (`pytest -m engine`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medix.jsonl import JsonLines
from medix_verl.export.checkpoint import locate
from medix_verl.export.generate import load_model
from medix_verl.export.weights import export_weights
from medix_verl.training.metrics_file import read_metrics
from medix_verl.training.watch import PEARSON
from tests.engine.conftest import ROOT, TIMEOUT_S, run_recipe
from tests.engine.greedy import greedy_answers
from tests.engine.live_checkpoint import log_probs

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2 * TIMEOUT_S)]

LORA_RANK, ANSWERS, RESPONSE_TOKENS = 4, 24, 40
NATS = 1e-3
"""Largest difference of a log-probability where both sides hold the same weights and compute in float32."""
BY_COMMAND = ("full 4", "LoRA 2")
SAVED = {f"{kind} {ranks}": (ranks, kind == "LoRA") for ranks in (1, 2, 4) for kind in ("full", "LoRA")}


@pytest.fixture(scope="module")
def saved(two_rank_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> run folder of a checkpoint that veRL's manager saved from a living model on so many gloo ranks."""
    folder = tmp_path_factory.mktemp("saved")
    runs = {name: folder / name.replace(" ", "_") for name in SAVED}
    wanted = [
        f"{runs[name]}/checkpoints/global_step_2/actor:{ranks}:{LORA_RANK if lora else 0}"
        for name, (ranks, lora) in SAVED.items()
    ]
    command = [sys.executable, "tests/engine/live_checkpoint.py", str(two_rank_run / "tiny-vlm"), *wanted]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return runs


def export(source: Path, out: Path, *options: str) -> dict[str, Any]:
    """`medix export`; returns export.json."""
    medix = [sys.executable, "-c", "from medix_verl.cli import main; main()"]
    command = [*medix, "export", str(source), "--out", str(out), "--json", *options]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert finished.returncode == 0, finished.stderr[-3000:]
    record: dict[str, Any] = json.loads(finished.stdout)
    return record


@pytest.mark.parametrize("case", SAVED)
def test_the_export_is_the_living_model(case: str, saved: dict[str, Path], two_rank_run: Path, tmp_path: Path) -> None:
    """Bit by bit, in fp32; with LoRA, what peft's own merge makes of the living model."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText

    _, lora = SAVED[case]
    tiny, out = two_rank_run / "tiny-vlm", tmp_path / "out"
    if case in BY_COMMAND:
        export(saved[case], out, "--base", str(tiny))
    else:  # the weights alone: a command of its own spends most of its time on imports
        out.mkdir()
        export_weights(locate(saved[case]), out, None, False, None, lambda *_: None)
    step = saved[case] / "checkpoints" / "global_step_2"
    live = load_file(step / ("merged.safetensors" if lora else "live.safetensors"))
    model = load_model(out, None, "float32")
    exported = model.state_dict()
    base = AutoModelForImageTextToText.from_pretrained(tiny, dtype=torch.float32).eval()
    assert exported.keys() == live.keys()
    assert [name for name in live if not torch.equal(exported[name], live[name])] == []
    assert any(not torch.equal(base.state_dict()[name], live[name]) for name in live)  # it did learn something
    # The sharded model's own forward pass, layers gathered by FSDP2 and LoRA not folded, against the folder's.
    sharded = json.loads((step / "log_probs.json").read_text())
    assert largest(log_probs(model, tiny), sharded["trained"]) <= NATS
    # So that an export of the base model, or without its adapter, would have been seen.
    assert largest(log_probs(base, tiny), sharded["trained"]) > 10 * NATS
    if lora:
        assert largest(sharded["without LoRA"], sharded["trained"]) > 10 * NATS


def largest(left: list[float], right: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(left, right, strict=True))


def validation_answers(run: Path, step: int) -> dict[str, str]:
    """Sample id -> what the trainer's own rollout engine answered, greedily, after that step."""
    records = [row for _, row in JsonLines(run / "rollouts" / "scored.jsonl")]
    return {r["sample_id"]: r["response"] for r in records if r["split"] != "train" and r["step"] == step}


def differing(exported: Path, run: Path, data: Path, step: int) -> dict[str, tuple[str, str]]:
    trained = validation_answers(run, step)
    samples = sorted(trained)[:ANSWERS]
    answers = greedy_answers(exported, data / "val.parquet", samples, RESPONSE_TOKENS)
    assert len(answers) == len(samples) >= 16
    return {sample: (answers[sample], trained[sample]) for sample in samples if answers[sample] != trained[sample]}


def test_the_export_answers_as_the_trainer_did(two_rank_run: Path, tmp_path: Path) -> None:
    """Two ranks, full weights: vLLM's greedy validation answers, again from the exported folder by transformers."""
    export(two_rank_run / "checkpoints" / "global_step_3", tmp_path / "out")
    assert differing(tmp_path / "out", two_rank_run, two_rank_run / "data", 3) == {}


def test_a_lora_run_exports_what_it_trained(two_rank_run: Path, tmp_path: Path) -> None:
    """The recipe with LoRA, one rank: its export folds the adapter, and answers as its last validation did."""
    run = tmp_path / "run"
    finished = run_recipe(
        run,
        "actor_rollout_ref.model.lora_alpha=16",
        "data.val_max_samples=16",
        LORA_RANK=str(LORA_RANK),
        STEPS="2",
        EVAL="0",
        MODEL=str(two_rank_run / "tiny-vlm"),
        DATA=str(two_rank_run / "data"),
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert min(row["data"][PEARSON] for row in read_metrics(run / "metrics.jsonl") if PEARSON in row["data"]) >= 0.999
    record = json.loads((run / "export" / "export.json").read_text())
    assert record["step"] == 2
    assert record["weights"]["lora"]["rank"] == LORA_RANK
    assert record["weights"]["lora"]["changed"] > 0
    assert differing(run / "export", run, two_rank_run / "data", 2) == {}
    adapter = export(run, tmp_path / "adapter", "--adapter-only")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert adapter["generations"] == record["generations"]
