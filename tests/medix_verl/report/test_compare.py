"""Runs compared on one page, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medix.errors import DataError
from medix_verl.cli import app
from medix_verl.report.compare import labels, results, warnings, write_comparison
from medix_verl.report.run_folder import load_run


@pytest.fixture
def other(synthetic_run: Path, tmp_path: Path) -> Path:
    """A run of 5 steps with another reward and learning rate."""
    folder = tmp_path / "other"
    folder.mkdir()
    row = {
        "step": 5,
        "data": {"reward/score/mean": 0.5, "actor/ppo_kl": 0.0004, "val-core/medix_sample/acc/mean@1": 0.25},
    }
    (folder / "metrics.jsonl").write_text(json.dumps(row))
    (folder / "reward_table.json").write_text(json.dumps([{"component": "format", "weight": 1, "effective": 1.0}]))
    (folder / "config.yaml").write_text((synthetic_run / "config.yaml").read_text().replace("lr: 0.0004", "lr: 0.1"))
    return folder


def test_the_table_has_a_column_a_run_and_the_difference(synthetic_run: Path, other: Path) -> None:
    table = {title: (values, change) for title, values, change in results([load_run(synthetic_run), load_run(other)])}
    assert table["Steps"] == (["12", "5"], "-7")
    values, change = table["Validation accuracy, medix_sample"]
    assert values[1] == "0.250"
    assert float(change) == pytest.approx(0.25 - float(values[0]))
    assert table["Reward"][0][1] == "0.500"
    assert table["KL of the update"][0][1] == "0.0004"  # it was shown as 0.000
    assert table["format"] == ([table["format"][0][0], "–"], "–")


def test_other_steps_and_other_rewards_are_warned_of(synthetic_run: Path, other: Path) -> None:
    same, differing = load_run(synthetic_run), load_run(other)
    assert warnings([same, same]) == []
    steps, rewards = warnings([same, differing])
    assert "different numbers of steps" in steps
    assert "different rewards" in rewards


def test_the_page_puts_the_differing_settings_first(synthetic_run: Path, other: Path) -> None:
    page = write_comparison([synthetic_run, other]).read_text(encoding="utf-8")
    assert page.index("actor_rollout_ref.actor.optim.lr") < page.index("Results")
    assert "actor_rollout_ref.rollout.n" not in page
    assert "different rewards" in page


def test_two_runs_of_one_name_are_told_apart(synthetic_run: Path) -> None:
    run = load_run(synthetic_run)
    assert labels([run, run]) == ["synthetic-run (1)", "synthetic-run (2)"]


@pytest.mark.parametrize(
    ("extra", "names"),
    [([], ["report.html", "curve.png", "curve.csv"]), (["--curve-only"], ["curve.png", "curve.csv"])],
)
def test_the_command_writes_page_and_curve_and_prints_their_paths(
    synthetic_run: Path, extra: list[str], names: list[str]
) -> None:
    result = CliRunner().invoke(app, ["report", str(synthetic_run), *extra])
    assert result.exit_code == 0
    assert [Path(line).name for line in result.output.split()] == names


@pytest.mark.parametrize("holds", [None, "", "manifest.json", "generations.jsonl"])
def test_what_is_no_run_is_refused_and_keeps_its_own_page(tmp_path: Path, holds: str | None) -> None:
    folder = tmp_path / "folder"
    if holds is not None:
        folder.mkdir()
        (folder / "report.html").write_text("its own")
        (folder / (holds or "notes.txt")).write_text("{}")
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert isinstance(result.exception, DataError)
    assert result.output == ""  # one message, and nothing of a missing curve before it
    assert holds is None or (folder / "report.html").read_text() == "its own"
