"""`medix export` before anything is read: what it refuses, and what a dry run shows."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medix.errors import ExportError
from medix_verl.cli import app
from medix_verl.export.contract import Checkpoint

ROOT = Path(__file__).resolve().parents[3]
REFUSED = {
    "public without push": (["--out", "x", "--public"], "--public together with --push"),
    "an unknown dtype": (["--out", "x", "--dtype", "int8"], "--dtype fp32, bf16, fp16; found 'int8'"),
    "no out": ([], "--out FOLDER; found none"),
    "a repository that is none": (["--out", "x", "--push", "model"], "--push USER/REPO"),
    "best of one step": (["--out", "x", "--best", "--dry-run"], "a run folder for --best"),
}


FINISHED = {
    "nothing to do": ([], "--push USER/REPO for an exported folder; found none"),
    "only to be shown": (["--json"], "--push USER/REPO for an exported folder; found none"),
    "a dtype": (["--push", "a/b", "--dtype", "bf16"], "--dtype together with --out"),
    "the best step": (["--push", "a/b", "--best"], "--best together with --out"),
    "a check": (["--push", "a/b", "--check-vllm", "--overwrite"], "found --check-vllm, --overwrite for a folder"),
    "a dry run of the base": (["--dry-run", "--base", "x"], "--base together with --out"),
}


@pytest.mark.parametrize("case", FINISHED)
def test_an_exported_folder_can_only_be_pushed(case: str, tmp_path: Path) -> None:
    """These options were passed over in silence."""
    options, message = FINISHED[case]
    (tmp_path / "export.json").write_text("{}")
    result = CliRunner().invoke(app, ["export", str(tmp_path), *options])
    assert isinstance(result.exception, ExportError)
    assert message in str(result.exception)


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


@pytest.mark.slow
def test_the_script_gives_its_knobs_to_the_command(step: Path, tmp_path: Path, base: Path) -> None:
    knobs = {"CHECKPOINT": str(step), "OUT": str(tmp_path / "out"), "BASE": str(base), "PUSH": "me/mine", "PUBLIC": "1"}
    environment = {**os.environ, **knobs, "DTYPE": "bf16", "CHECK_VLLM": "1", "GGUF_READY": "1", "DRY_RUN": "1"}
    shown = subprocess.run(
        ["bash", str(ROOT / "recipes/medix/export_hf.sh"), "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert shown.returncode == 0, shown.stderr
    plan = json.loads(shown.stdout)
    assert (plan["step"], plan["push"], plan["visibility"]) == (7, "me/mine", "public")
    assert (plan["out"], plan["base_folder"]) == (str(tmp_path / "out"), str(base))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_script_alone_shows_the_commands_own_refusal(tmp_path: Path) -> None:
    environment = {**os.environ, "CHECKPOINT": str(tmp_path), "DRY_RUN": "1"}
    command = ["bash", str(ROOT / "recipes/medix/export_hf.sh")]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert shown.returncode == 2
    assert "expected --out FOLDER; found none" in shown.stderr
