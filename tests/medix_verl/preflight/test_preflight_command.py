"""`medix preflight` as a whole: no setting keeps the other checks from being shown, and no file is needed for some."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from examples.rule_judge.server import start_rule_judge
from medix_verl.cli import app

# Hydra composes veRL's whole configuration each time
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_no_platform")]


def run_json(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and checks by name."""
    result = CliRunner().invoke(app, ["preflight", "--json", *arguments])
    return result.exit_code, {check["name"]: check for check in json.loads(result.stdout)["checks"]}


STRANGE = {
    "actor_rollout_ref.rollout.tensor_model_parallel_size=null": "rollout engines",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=null": "lengths",
    "trainer.save_freq=null": "checkpoints",
    "trainer.n_gpus_per_node=null": "batch sizes",
    "data.train_files=null": "train rows",
    "data.train_files=3": "data 1",
    "trainer=null": "batch sizes",
    "reward.reward_model=null": "CPUs",
    "medix.reward.components.format.weight=null": "reward",
    "medix.scorer.judge=null": "scorers",
    "medix.watchdog=3": "guards",
    "trainer.logger=[console]": "trackers",
    "trainer.logger=null": "trackers",
}


@pytest.mark.parametrize(("override", "name"), STRANGE.items())
def test_a_value_that_can_not_be_is_a_failed_check_among_the_others(override: str, name: str, tmp_path: Path) -> None:
    closed = "medix.scorer.judge.urls=[http://127.0.0.1:1]"  # port 1 is refused at once
    off = "medix.reward.components.embed_accuracy.weight=0"
    given = [f"medix.run_dir={tmp_path}", off, *([] if "judge=" in override else [closed]), override]
    code, checks = run_json("--", *given)
    assert code == 2
    assert checks[name]["status"] == "fail"
    assert checks["load format"]["status"] == "pass"
    assert all(check["remedy"] for check in checks.values() if check["status"] != "pass")


def test_adapters_of_no_regular_expression_say_how_it_is_written(tmp_path: Path) -> None:
    lora = ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.exclude_modules='*visual*'"]
    _, checks = run_json("--config-only", "--", f"medix.run_dir={tmp_path}", *lora)
    assert checks["adapters"]["status"] == "fail"
    assert ".*visual.*" in checks["adapters"]["remedy"]


@pytest.mark.parametrize("judge", [[], ["judge=colocated", "reward.reward_model.model_path=outputs/not/yet"]])
def test_the_configuration_alone_needs_no_files_and_no_scorers(judge: list[str], tmp_path: Path) -> None:
    code, checks = run_json("--config-only", "--", f"medix.run_dir={tmp_path}", *judge)
    assert (code, [name for name, check in checks.items() if check["status"] == "fail"]) == (0, [])
    assert {"versions", "batch sizes", "guards", "trackers", "plugins"} <= checks.keys()
    assert not [name for name in checks if name.startswith(("model ", "data", "train rows", "judge rule", "embedder"))]
    assert ("judge" in checks) == bool(judge)


def test_a_wrong_setting_is_found_in_the_configuration_alone(tmp_path: Path) -> None:
    wrong = ["data.train_batch_size=17", "+medix.scorer.judge.modle=x", "reward_model.enable=true"]
    code, checks = run_json("--config-only", "--", f"medix.run_dir={tmp_path}", *wrong)
    assert code == 2
    assert [checks[name]["status"] for name in ("batch sizes", "guards", "reward manager")] == ["fail"] * 3


def test_the_command_lists_every_fault_at_once(tmp_path: Path) -> None:
    wrong = ["actor_rollout_ref.rollout.load_format=dummy", "data.train_batch_size=17"]
    off = "medix.reward.components.embed_accuracy.weight=0"
    with start_rule_judge() as url:
        code, checks = run_json(f"medix.run_dir={tmp_path}", f"medix.scorer.judge.urls=[{url}]", off, *wrong)
    assert code == 2
    failing = {name for name, check in checks.items() if check["status"] == "fail"}
    assert {"model", "data 1", "data 2", "load format", "batch sizes"} <= failing
    assert checks["judge rule-judge"]["status"] == "pass"
    assert not any(name.startswith("embedder") for name in checks)


def test_a_wrong_scorer_setting_is_one_failed_check_among_the_others(tmp_path: Path) -> None:
    code, checks = run_json(f"medix.run_dir={tmp_path}", "+medix.scorer.judge.modle=x")
    assert code == 2
    assert checks["scorers"]["status"] == "fail"
    assert "model" in checks["scorers"]["remedy"]
