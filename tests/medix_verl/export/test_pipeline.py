"""The whole export, with fake weights: what it records, overwriting, failures, progress. No torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medix.errors import ConfigError
from medix_verl.export import pipeline
from medix_verl.export.contract import Checkpoint, ExportOptions
from medix_verl.export.progress import say, shown_progress


def test_checks_see_the_weights_and_their_findings_are_recorded(actor: Path, tmp_path: Path) -> None:
    seen = []

    def side_files(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        assert folder != tmp_path / "out"
        assert not (tmp_path / "out").exists()
        seen.append((checkpoint.step, (folder / "model.safetensors").read_text()))
        return {"files": 3}

    out = pipeline.export(ExportOptions(actor, tmp_path / "out", dtype="float32"), checks=[side_files])
    record = json.loads((out / "export.json").read_text())
    assert seen == [(3, "float32")]
    assert record["checks"] == {"side_files": {"files": 3}}
    assert (record["step"], record["weights"]["digest"]) == (3, "d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_an_earlier_export_is_replaced_only_when_asked(actor: Path, tmp_path: Path) -> None:
    out = pipeline.export(ExportOptions(actor, tmp_path / "out"), checks=[])
    (out / "old").write_text("")
    with pytest.raises(ConfigError, match="which exists"):
        pipeline.export(ExportOptions(actor, out), checks=[])
    assert (out / "old").exists()
    pipeline.export(ExportOptions(actor, out, dtype="bfloat16", overwrite=True), checks=[])
    assert (out / "model.safetensors").read_text() == "bfloat16"
    assert not (out / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a fault"), ConfigError("a", "b", "c")])
def test_a_failure_leaves_the_earlier_export_as_it_was(error: BaseException, actor: Path, tmp_path: Path) -> None:
    out = pipeline.export(ExportOptions(actor, tmp_path / "out"), checks=[])
    before = (out / "export.json").read_text()

    def broken(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        pipeline.export(ExportOptions(actor, out, dtype="bfloat16", overwrite=True), checks=[broken])
    assert (out / "export.json").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


WHERE = {
    "runs/first/checkpoints/global_step_3/actor": "first/checkpoints/global_step_3/actor",
    "alice/global_step_3/actor": "global_step_3/actor",
    "alice/weights": "weights",
}


@pytest.mark.parametrize("place", WHERE)
def test_where_a_checkpoint_lay_is_not_told(place: str, actor: Path, tmp_path: Path) -> None:
    """The record goes to the hub: from the run's folder on, if it has one."""
    (tmp_path / place).parent.mkdir(parents=True)
    actor.rename(tmp_path / place)
    out = pipeline.export(ExportOptions(tmp_path / place, tmp_path / "out"), checks=[])
    assert json.loads((out / "export.json").read_text())["checkpoint"] == WHERE[place]


def test_what_is_not_proved_stands_in_one_place(actor: Path, tmp_path: Path) -> None:
    def side_files(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"unproved": "the base model is not here"}

    def behaviour(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"skipped": {"sharded model": "no answer within 3600 s"}}

    out = pipeline.export(ExportOptions(actor, tmp_path / "out"), checks=[side_files, behaviour])
    assert json.loads((out / "export.json").read_text())["not_proved"] == [
        "side files: the base model is not here",
        "sharded model: no answer within 3600 s",
    ]


def test_long_work_off_a_terminal_says_what_it_is_at(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress(every_s=0.05) as report:
        report("checking: behaviour", 1, 4)
        time.sleep(0.3)
        say("proving: folder probe")  # by what runs inside of a check
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "export: 0 s, checking: behaviour, 25%"
    assert lines[-1].endswith(" s, proving: folder probe")
    assert len(lines) <= 12  # 0.6 s of a line each 0.05 s; a busy machine may miss some


def test_short_work_off_a_terminal_says_nothing(actor: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline.export(ExportOptions(actor, tmp_path / "out"), checks=[])
    assert capfd.readouterr().err == ""


def test_the_pipeline_starts_without_torch() -> None:
    code = "import sys, medix_verl.export.pipeline, medix_verl.export.manifest; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
