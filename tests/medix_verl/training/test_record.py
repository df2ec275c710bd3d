"""`medix train`: what is recorded before veRL starts, which folder may be used again, and what starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from typer.testing import CliRunner

from medix.errors import ConfigError
from medix.files import hold_folder
from medix_verl.cli import app
from medix_verl.recipe.knobs import quoted
from medix_verl.training import record, supervisor
from medix_verl.training.record import check_run_folder, git_state, installed_versions, write_record

REWARD = '"""Pay short answers."""\n\n\ndef brevity(item):\n    return 1.0\n'


def test_the_run_is_recorded_and_verl_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Mock(side_effect=lambda command, begin: begin())
    monkeypatch.setattr(supervisor.Supervisor, "run", started)
    monkeypatch.setenv("LAB_KEY", "squeamish-ossifrage")
    run, component = tmp_path / "run", tmp_path / "mine.py"
    component.write_text(REWARD)
    overrides = [
        f"medix.run_dir={run}",
        "algorithm=gspo",
        "medix.reward.components.embed_accuracy.weight=0",
        "+medix.scorer.judge.headers={X-Lab: '${oc.env:LAB_KEY}'}",
        f"+medix.reward.components.brevity={{path: '{component}:brevity', weight: 0}}",
    ]
    result = CliRunner().invoke(app, ["train", "--", *overrides])
    assert result.exit_code == 0, result.output
    command = started.call_args.args[0]
    assert command[:4] == [sys.executable, "-P", "-m", "verl.trainer.main_ppo"]
    assert command[command.index("--config-name") + 1] == "medix_cpu"
    assert command[-6:] == [*overrides, f"hydra.run.dir={quoted(f'{run}/hydra')}"]
    recorded = (run / "config.yaml").read_text()
    assert "loss_mode: gspo" in recorded
    assert "squeamish" not in recorded
    versions = json.loads((run / "versions.json").read_text())
    assert versions["verl"] == "0.9.1"
    assert versions["git"]["dirty"]  # git does not know the component
    (kept,) = (run / "code").iterdir()
    assert kept.read_text() == REWARD
    assert kept.name == f"{versions['code'][str(component)][:12]}-mine.py"
    table = {row["component"]: row for row in json.loads((run / "reward_table.json").read_text())}
    assert table["embed_accuracy"]["effective"] == 0
    # What is left is renormalised: 0.5175 / (0.5175 + 0.045 + 0.10)
    assert table["llm_accuracy"]["effective"] == pytest.approx(0.5175 / 0.6625)


def test_a_configuration_is_printed_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", "squeamish-ossifrage")
    overrides = ["+medix.scorer.judge.headers={X-Lab: '${oc.env:LAB_KEY}'}"]
    shown = CliRunner().invoke(app, ["config", "medix_cpu", "--", *overrides])
    assert "X-Lab: '***'" in shown.output


@pytest.fixture
def trained(config: Any, tmp_path: Path) -> Any:
    """The configuration of a run that has logged a step."""
    config.medix.run_dir = str(tmp_path / "run")
    write_record(config)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "data": {}}\n')
    return config


CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nothing": ({}, ()),
    "more steps, other logger": ({"trainer.total_training_steps": 80, "trainer.logger": ["file", "tensorboard"]}, ()),
    "watchdog, and the judge's address": (
        {"medix.watchdog.stall_minutes": 60, "medix.scorer.judge.urls": ["http://127.0.0.1:8001"]},
        (),
    ),
    "memory": ({"actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 512, "trainer.save_freq": 5}, ()),
    "another algorithm": (
        {"actor_rollout_ref.actor.policy_loss.loss_mode": "gspo"},
        ("actor_rollout_ref.actor.policy_loss.loss_mode was vanilla, is gspo",),
    ),
    "another judge and seed": (
        {"medix.scorer.judge.model": "other", "data.seed": 7},
        ("medix.scorer.judge.model was", "data.seed was 1, is 7"),
    ),
    "more tokens for a judge that thinks": (
        {"medix.scorer.judge.free_tokens": 9, "medix.scorer.judge.extra": {"think": False}},
        ("judge.extra.think was not set, is False", "judge.free_tokens was not set, is 9"),
    ),
    "another limit of the embedder": (
        {"medix.reward.components.embed_accuracy.threshold": 0.9},
        ("threshold was 0.45, is 0.9",),
    ),
    "another model and data": (
        {"actor_rollout_ref.model.path": "other", "data.train_files": "other/train.parquet"},
        ("model.path was", "data.train_files was"),
    ),
    "another reward": ({"medix.reward.components.format.weight": 0.5}, ("components.format.weight was 0.1, is 0.5",)),
}


@pytest.mark.parametrize(("changes", "told"), CHANGES.values(), ids=CHANGES)
def test_a_folder_belongs_to_its_configuration(changes: dict[str, Any], told: tuple[str, ...], trained: Any) -> None:
    for key, value in changes.items():
        OmegaConf.update(trained, key, value, force_add=True)
    if not told:
        check_run_folder(trained)
        return
    with pytest.raises(ConfigError) as caught:
        check_run_folder(trained)
    assert all(text in caught.value.problem for text in told)
    assert caught.value.problem.count(" was ") == len(told)
    assert "RUN=" in caught.value.fix


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("trainer.total_training_steps", 2, "has 3 steps, more than the 2"),
        ("trainer.resume_mode", "disable", "would mix a new run with the 3 steps"),
    ],
)
def test_a_run_is_neither_shortened_nor_begun_anew_in_its_folder(
    key: str, value: Any, problem: str, trained: Any, tmp_path: Path
) -> None:
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 3, "data": {}}\n')
    assert check_run_folder(trained) == 3
    OmegaConf.update(trained, key, value)
    with pytest.raises(ConfigError, match=problem):
        check_run_folder(trained)


def test_a_component_or_judge_prompt_that_was_edited_since_is_another_reward(config: Any, tmp_path: Path) -> None:
    component, prompt = tmp_path / "mine.py", tmp_path / "prompt.txt"
    for file in (component, prompt):
        file.write_text(REWARD)
    config.medix.run_dir = str(tmp_path / "run")
    OmegaConf.update(config, "medix.scorer.judge.prompt", str(prompt), force_add=True)
    part = {"path": f"{component}:brevity", "weight": 0.1}
    OmegaConf.update(config, "medix.reward.components.brevity", part, force_add=True)
    write_record(config)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "data": {}}\n')
    check_run_folder(config)
    for file in (component, prompt):
        file.write_text(REWARD + "# changed\n")
        with pytest.raises(ConfigError, match=f"{file.name} was edited since"):
            check_run_folder(config)
        file.write_text(REWARD)


def test_a_finished_run_starts_no_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Mock(side_effect=lambda command, begin: begin())
    monkeypatch.setattr(supervisor.Supervisor, "run", started)
    command = ["train", "--", f"medix.run_dir={tmp_path}", "trainer.total_training_steps=1"]
    CliRunner().invoke(app, command)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {}}\n')
    CliRunner().invoke(app, command)
    assert started.call_count == 2  # its last step was logged, but there is no checkpoint of it
    (tmp_path / "checkpoints/global_step_1").mkdir(parents=True)
    (tmp_path / "checkpoints/latest_checkpointed_iteration.txt").write_text("1")
    assert "nothing is left to train" in CliRunner().invoke(app, command).stderr
    assert started.call_count == 2


def test_a_folder_that_was_moved_or_never_trained_in_may_be_gone_on_with(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    trained.medix.run_dir = "elsewhere"
    for key in ("trainer.default_local_dir", "trainer.validation_data_dir", "medix.scorer.cache.path"):
        moved = str(OmegaConf.select(trained, key)).replace(str(tmp_path / "run"), "elsewhere")
        OmegaConf.update(trained, key, moved)
    check_run_folder(trained)
    trained.data.seed = 9
    (tmp_path / "elsewhere" / "metrics.jsonl").write_text("")  # as a start that failed leaves it
    check_run_folder(trained)


def test_a_run_of_another_algorithm_does_not_report_the_finished_ones_numbers(trained: Any) -> None:
    """`ALGO=gspo bash recipes/medix/run_cpu.sh` after `make demo` printed GRPO's numbers as GSPO's."""
    overrides = [f"medix.run_dir={trained.medix.run_dir}", "algorithm=gspo"]
    result = CliRunner().invoke(app, ["train", "--", *overrides])
    assert isinstance(result.exception, ConfigError)
    assert "loss_mode was vanilla, is gspo" in str(result.exception)


def test_a_refused_second_run_leaves_the_records_of_the_first_alone(tmp_path: Path) -> None:
    records = [tmp_path / name for name in ("config.yaml", "versions.json", "reward_table.json", "wandb_run_id")]
    for path in records[:3]:
        path.write_text("of the run at work\n")
    with hold_folder(tmp_path):
        result = CliRunner().invoke(app, ["train", "--", f"medix.run_dir={tmp_path}", "trainer.logger=[file,wandb]"])
    assert "Another run is at work" in str(result.exception)
    assert [path.read_text() for path in records[:3]] == ["of the run at work\n"] * 3
    assert not records[3].exists()


def test_an_interrupted_run_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor.Supervisor, "run", Mock(side_effect=supervisor.Interrupted("SIGINT")))
    result = CliRunner().invoke(app, ["train", "--", f"medix.run_dir={tmp_path}"])
    assert result.exit_code == 130
    assert "stopped by SIGINT" in result.stderr


def test_versions_and_git_state_are_this_environment_and_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = installed_versions()
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert len(git_state([])["commit"]) == 40
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state([]) == {}


@pytest.mark.parametrize(("name", "dirty"), [("known.py", False), ("new.py", True), ("../outside.py", True)])
def test_code_that_git_does_not_know_makes_the_state_dirty(
    name: str, dirty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "a" / "b").mkdir(parents=True)
    for file in ("known.py", "new.py", "../outside.py"):
        (checkout / file).write_text(REWARD)
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "known.py"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    monkeypatch.setattr(record, "__file__", str(checkout / "a" / "b" / "record.py"))
    assert git_state([checkout / name])["dirty"] is dirty


@pytest.mark.parametrize("folder", ["outputs/lr=1e-6", "a(b),c", "my run (v2)", "it's", "back\\", "2024"])
def test_a_folder_s_name_is_no_override_syntax(folder: str) -> None:
    override = OverridesParser.create().parse_override(f"hydra.run.dir={quoted(folder)}")
    assert override.value() == folder
