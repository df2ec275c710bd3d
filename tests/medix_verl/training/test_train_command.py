"""`medix train`: what is recorded before veRL starts, and the command that starts it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from typer.testing import CliRunner

from medix.processes import hold_run
from medix_verl.cli import app
from medix_verl.training import supervisor
from medix_verl.training.command import quoted
from medix_verl.training.record import git_state, installed_versions


class FakeSupervisor(supervisor.Supervisor):
    """Remembers the command instead of running it."""

    seen: list[Sequence[str]]

    def run(self, command: Sequence[str], begin: Callable[[], None] = lambda: None) -> None:
        begin()
        type(self).seen.append(command)


class FakeInterruptedSupervisor(supervisor.Supervisor):
    """A user presses Ctrl-C at once."""

    def run(self, command: Sequence[str], begin: Callable[[], None] = lambda: None) -> None:
        raise supervisor.Interrupted("SIGINT")


def test_the_run_is_recorded_and_verl_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSupervisor.seen = []
    monkeypatch.setattr(supervisor, "Supervisor", FakeSupervisor)
    run = tmp_path / "run"
    overrides = [f"medix.run_dir={run}", "algorithm=gspo", "medix.reward.components.embed_accuracy.weight=0"]
    result = CliRunner().invoke(app, ["train", "--", *overrides])
    assert result.exit_code == 0, result.output
    (command,) = FakeSupervisor.seen
    assert command[:3] == [sys.executable, "-m", "verl.trainer.main_ppo"]
    assert command[command.index("--config-name") + 1] == "medix_cpu"
    assert command[-4:] == [*overrides, f"hydra.run.dir='{run}/hydra'"]
    assert "loss_mode: gspo" in (run / "config.yaml").read_text()
    assert json.loads((run / "versions.json").read_text())["verl"] == "0.9.1"
    table = {row["component"]: row for row in json.loads((run / "reward_table.json").read_text())}
    assert table["embed_accuracy"]["effective"] == 0
    # What is left is renormalised: 0.5175 / (0.5175 + 0.045 + 0.10)
    assert table["llm_accuracy"]["effective"] == pytest.approx(0.5175 / 0.6625)


def test_a_refused_second_run_leaves_the_records_of_the_first_alone(tmp_path: Path) -> None:
    records = [tmp_path / name for name in ("config.yaml", "versions.json", "reward_table.json", "wandb_run_id")]
    for record in records[:3]:
        record.write_text("of the run at work\n")
    with hold_run(tmp_path):
        result = CliRunner().invoke(app, ["train", "--", f"medix.run_dir={tmp_path}", "trainer.logger=[file,wandb]"])
    assert "another one at work" in str(result.exception)
    assert [record.read_text() for record in records[:3]] == ["of the run at work\n"] * 3
    assert not records[3].exists()


def test_an_interrupted_run_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "Supervisor", FakeInterruptedSupervisor)
    result = CliRunner().invoke(app, ["train", "--", f"medix.run_dir={tmp_path}"])
    assert result.exit_code == 130
    assert "stopped by SIGINT" in result.stderr


def test_versions_and_git_state_are_this_environment_and_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = installed_versions()
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert versions["verl"] == "0.9.1"
    assert len(git_state()["commit"]) == 40
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state() == {}


@pytest.mark.parametrize("folder", ["outputs/lr=1e-6", "a(b),c", "my run (v2)", "it's", "2024"])
def test_a_folder_s_name_is_no_override_syntax(folder: str) -> None:
    override = OverridesParser.create().parse_override(f"hydra.run.dir={quoted(folder)}")
    assert override.value() == folder
