"""Every GPU recipe, as composed, passes the checks that need no GPU, on the cards it was written for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medix_verl.cli import app
from medix_verl.preflight import config as settings
from medix_verl.preflight import disk, machine, memory
from medix_verl.preflight.check import run_check
from medix_verl.preflight.machine import Gpu
from medix_verl.run_config import compose_config

pytestmark = pytest.mark.slow  # composes a configuration each

RECIPES = {
    "7B on eight": ("medix_7b", ["hardware=gpu_8", "judge=external"], 8, 80.0),
    "7B, two for the judge": ("medix_7b", [], 8, 80.0),
    "3B": ("medix_3b", [], 8, 80.0),
    "3B with adapters on one card": ("medix_3b", ["hardware=gpu_24gb", "judge=external"], 1, 24.0),
    "2B": ("medix_2b", [], 8, 80.0),
    "8B": ("medix_8b", [], 8, 80.0),
    "8B with the released GRPO's reference model": ("medix_8b", ["algorithm=grpo_kl"], 8, 80.0),
    "30B": ("medix_30b", [], 8, 80.0),
    "30B, eight train": ("medix_30b", ["hardware=gpu_8", "judge=external"], 8, 80.0),
}
TOO_SMALL = {
    # Rollout engines of one GPU: the weights alone are more than vLLM's share.
    "30B, seven and one": ("medix_30b", ["hardware=gpu_7_judge_1"], 80.0),
    "7B on cards of 40 GB": ("medix_7b", [], 40.0),
}


@pytest.mark.parametrize(("name", "overrides", "card"), TOO_SMALL.values(), ids=TOO_SMALL.keys())
def test_cards_that_are_too_small_are_told(name: str, overrides: list[str], card: float) -> None:
    config: Any = compose_config(name, ["medix.run_dir=/tmp/run", *overrides])
    assert memory.check_memory(config, card).status == "fail"


@pytest.mark.parametrize(("name", "overrides", "gpus", "card"), RECIPES.values(), ids=RECIPES.keys())
def test_a_recipe_fits_its_cards(
    name: str, overrides: list[str], gpus: int, card: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config: Any = compose_config(name, ["medix.run_dir=/tmp/run", *overrides])
    found = [
        run_check("GPUs", lambda: machine.check_gpus(config, [Gpu("card", card)] * gpus)),
        run_check("memory", lambda: memory.check_memory(config, card)),
        run_check("main memory", lambda: memory.check_host_memory(config, 640.0)),
        run_check("batch sizes", lambda: settings.check_batch_sizes(config)),
        run_check("rollout engines", lambda: settings.check_replicas(config)),
        run_check("lengths", lambda: settings.check_lengths(config)),
        run_check("load format", lambda: settings.check_load_format(config)),
        run_check("reward manager", lambda: settings.check_reward_manager(config)),
        run_check("guards", lambda: settings.check_guards(config)),
        run_check("checkpoints", lambda: disk.check_best(config)),
    ]
    assert [check for check in found if check.status != "pass"] == []


def test_the_command_reckons_with_cards_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also the check of the platform, which would import torch, waits until there is a GPU."""
    monkeypatch.setattr("medix_verl.preflight.machine.list_gpus", lambda: [])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    overrides = ["hardware=gpu_8", "judge=external", f"medix.run_dir={tmp_path}"]
    overrides += ["medix.scorer.judge.urls=[http://127.0.0.1:1]", "medix.reward.components.embed_accuracy.weight=0"]
    command = ["preflight", "--json", "--config-name", "medix_7b", "--gpu-memory-gb", "80", *overrides]
    result = CliRunner().invoke(app, command)
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 2
    assert checks["GPUs"]["status"] == "fail"
    assert "make demo" in checks["GPUs"]["remedy"]
    assert checks["platform"]["status"] == "warn"
    assert checks["GPU memory"]["status"] == "pass"
    assert "of 80 GB" in checks["GPU memory"]["found"]
    estimate = checks["estimate"]["found"]  # 51,335 rows // 512 x 2 epochs
    assert estimate.startswith("200 steps, ")
    assert "an estimate: 30% of the card's peak" in estimate
    assert estimate.endswith("on H100")
    assert all(check["remedy"] for check in checks.values() if check["status"] != "pass")
