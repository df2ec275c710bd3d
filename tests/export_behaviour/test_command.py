"""`medix export` before anything is read: what it refuses, and what a dry run shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medix.cli import app
from medix.errors import ExportError
from medix.export.contract import Checkpoint

REFUSED = {
    "public without push": (["--out", "x", "--public"], "--public together with --push"),
    "an unknown dtype": (["--out", "x", "--dtype", "int8"], "--dtype fp32, bf16, fp16; found 'int8'"),
    "no out": ([], "--out FOLDER; found none"),
    "a repository that is none": (["--out", "x", "--push", "model"], "--push USER/REPO"),
    "best of one step": (["--out", "x", "--best", "--dry-run"], "a run folder for --best"),
}


@pytest.fixture
def step(checkpoint: Checkpoint) -> Path:
    (checkpoint.actor / "model_world_size_1_rank_0.pt").write_bytes(b"x" * 1234)
    (checkpoint.actor.parent / "data.pt").write_bytes(b"")
    return checkpoint.actor.parent


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_options_are_refused_before_the_work(case: str, step: Path) -> None:
    options, message = REFUSED[case]
    result = CliRunner().invoke(app, ["export", str(step), *options])
    assert isinstance(result.exception, ExportError)
    assert message in str(result.exception)


def test_a_dry_run_shows_what_would_be_read_and_written(step: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["export", str(step), "--out", str(out), "--push", "someone/model", "--dry-run", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["read"] == {"model_world_size_1_rank_0.pt": 1234}
    assert plan["step"] == 7
    assert plan["visibility"] == "private"
    # The image processor's own file is the base model's; the checkpoint has only the newer one.
    assert {"processor_config.json", "preprocessor_config.json", "README.md", "export.json"} <= plan["write"].keys()
    assert not out.exists()
