"""The folder appears whole or not at all: refusals, overwriting, Ctrl-C, kill -9. Weights are a fake; no torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix.errors import ConfigError, MedixError
from medix.export import pipeline, swap
from medix.export.contract import Checkpoint, ExportOptions, WeightProof

from .fake_shards import FakeShard


def fake_weights(checkpoint: Checkpoint, target: Path, **how: Any) -> WeightProof:
    """One file that says how it was asked for."""
    (target / "model.safetensors").write_text(str(how["dtype"]))
    nothing: tuple[str, ...] = ()
    return WeightProof(1, 1, 4, "d", "float32", "option", nothing, nothing, 1, "s", (), nothing, None, nothing, nothing)


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pipeline, "export_weights", fake_weights)
    folder = tmp_path / "run/checkpoints/global_step_3/actor"
    folder.mkdir(parents=True)
    shard = FakeShard()
    shard.save(folder / "model_world_size_1_rank_0.pt", {"w": shard.tensor([1.0], (1,))})
    return folder


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


def folder_of_somebody(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("")
    return tmp_path / "photos"


def link_to_an_export(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/export.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    return tmp_path / "link"


REFUSED: dict[str, Callable[[Path], Path]] = {
    "a folder that is no export": folder_of_somebody,
    "a link": link_to_an_export,
    "inside the checkpoint": lambda tmp_path: tmp_path / "run/checkpoints/global_step_3/actor/hf",
    "around the checkpoint": lambda tmp_path: tmp_path / "run",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_target_that_must_not_be_replaced_is_refused(case: str, actor: Path, tmp_path: Path) -> None:
    out = REFUSED[case](tmp_path)
    with pytest.raises(MedixError):
        pipeline.export(ExportOptions(actor, out, overwrite=True), checks=[])
    assert (actor / "model_world_size_1_rank_0.pt").is_file()


def test_kill_leaves_nothing_at_the_name_and_the_next_export_tidies_up(actor: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from medix.export import pipeline
from medix.export.contract import ExportOptions
def weights(checkpoint, target, **how):
    (target / "model.safetensors").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
pipeline.export_weights = weights
pipeline.export(ExportOptions(Path(sys.argv[1]), Path(sys.argv[2])), checks=[])
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(actor), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.glob("out*")] == [f"out.part-{child.pid}"]
    mine = tmp_path / "out.part-1"  # of a process that lives: not ours to remove
    mine.mkdir()
    pipeline.export(ExportOptions(actor, tmp_path / "out"), checks=[])
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", "out.part-1"]


@pytest.mark.parametrize("has_exchange", [True, False])
def test_folders_change_places(has_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_exchange:
        monkeypatch.setattr(swap.ctypes, "CDLL", lambda *_, **__: object())
    for name in ("part", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    swap.take_final_name(tmp_path / "part", tmp_path / "out")
    assert (tmp_path / "out/content").read_text() == "part"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_pipeline_starts_without_torch() -> None:
    code = "import sys, medix.export.pipeline, medix.export.manifest; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
