"""The rehearsal of an update, on the real class of a family in one or two layers."""

from __future__ import annotations

import json

import pytest

from medix_verl.preflight.memory_estimate import TrainingPlan
from medix_verl.preflight.model import KNOWN_MODELS, shape_of
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
@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-2B-Instruct"])
def test_a_small_model_of_each_family_goes_through_forward_and_backward(name: str) -> None:
    """One decoder layer, four of vision; 128 tokens, 64 of them from 256 patches."""
    import subprocess

    from medix.processes import child_environment, python_command

    config = json.loads(KNOWN_MODELS.read_text())[name]["config"]
    config["text_config"]["num_hidden_layers"], config["vision_config"]["depth"] = 1, 4
    config["text_config"]["vocab_size"] = 1000
    request = {"config": config, "gpus": 2, "tokens": 128, "patches": 256, "bytes": 4, "checkpointing": True}
    command = python_command("medix_verl.preflight.rehearsal", json.dumps(request))
    run = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr[-2000:]
    peak = json.loads(run.stdout.splitlines()[-1])
    assert peak["SHARDED_PARAM"] > 1e8  # real sizes, and no such memory is taken
    assert peak["Total"] >= peak["SHARDED_PARAM"] + peak["ACT"]
