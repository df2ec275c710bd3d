"""The rehearsal of an update, on the real class of each family in two layers."""

from __future__ import annotations

import json
import subprocess

import pytest

from medix.processes import child_environment, python_command
from medix_verl.preflight.memory_estimate import TrainingPlan
from medix_verl.preflight.model import KNOWN_MODELS, _shape, measure, shape_of
from medix_verl.preflight.rehearsal import compare


def test_the_trackers_kinds_are_held_against_the_parts_of_the_estimate() -> None:
    shape = shape_of("Qwen/Qwen2.5-VL-7B-Instruct")
    assert shape is not None
    plan = TrainingPlan(shape, 6, 16_896, 33_792, 4352 / 8448)
    peak = {
        "SHARDED_PARAM": 5.5e9,
        "UNSHARDED_PARAM": 1e9,
        "ALL_GATHER": 1e9,
        "ACT": 10e9,
        "TEMP": 5e9,
        "Total": 22.5e9,
    }
    rows = compare(plan, peak)
    assert rows["weights"] == {"rehearsed": 5.5, "estimated": pytest.approx(5.528, abs=0.001)}
    assert (rows["gathered layers"]["rehearsed"], rows["activations"]["rehearsed"]) == (2.0, 15.0)
    assert rows["sum"]["rehearsed"] == 22.5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-30B-A3B-Instruct"]
)
def test_the_estimate_is_held_against_a_rehearsal_of_each_family(name: str) -> None:
    """Two decoder layers, four of vision; the recipes' token budget, half of it images."""
    from transformers import AutoConfig

    config = json.loads(KNOWN_MODELS.read_text())[name]["config"]
    config["text_config"]["num_hidden_layers"], config["vision_config"]["depth"] = 2, 4
    shape = _shape(measure(AutoConfig.for_model(**config)))
    plan = TrainingPlan(shape, gpus=2, update_tokens=16_896, log_prob_tokens=16_896, image_share=0.5)
    request = {"config": config, "gpus": 2, "tokens": 16_896, "patches": 33_792, "bytes": 4, "checkpointing": True}
    command = python_command("medix_verl.preflight.rehearsal", json.dumps(request))
    run = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr[-2000:]
    for part, row in compare(plan, json.loads(run.stdout.splitlines()[-1])).items():
        assert row["estimated"] == pytest.approx(row["rehearsed"], rel=0.15), part
