"""How a folder takes its name, and what is left of an export that was killed. Weights are a fake; no torch."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from medix.errors import ConfigError, MedixError
from medix_verl.export import pipeline, swap
from medix_verl.export.contract import Checkpoint, ExportOptions

pytestmark = pytest.mark.slow

EXPORT = """import sys, time
from pathlib import Path
from medix_verl.export import pipeline
from medix_verl.export.children import Child
from medix_verl.export.contract import ExportOptions, WeightProof
def weights(checkpoint, target, **how):
    (target / "model.safetensors").write_text("half")
    print("writing", flush=True)
    WEIGHTS
    return WeightProof(1, 1, 4, "d", "float32", "option", (), (), 1, "s", (), (), None, (), ())
def behaviour(folder, checkpoint):
    with Child("fake_proof", {}) as child:
        print(child._process.pid, flush=True)
        return child.answer()
pipeline.export_weights = weights
pipeline.export(ExportOptions(Path(sys.argv[1]), Path(sys.argv[2])), checks=[behaviour])
"""


def started(actor: Path, tmp_path: Path, while_writing: str = "") -> subprocess.Popen[str]:
    """An export as a process of its own. It prints a line when it writes, and its proof's process id."""
    (tmp_path / "fake_proof.py").write_text("import time; time.sleep(60)")
    return subprocess.Popen(
        [sys.executable, "-c", EXPORT.replace("WEIGHTS", while_writing), str(actor), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )


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


class TestWhatCameMeanwhile:
    """An export takes an hour, in which somebody else may have put something at its name."""

    CAME: ClassVar[dict[str, tuple[str, bool]]] = {
        # what came -> (its file, whether --overwrite was given)
        "a thesis": ("thesis.tex", False),
        "a thesis, with --overwrite": ("thesis.tex", True),
        "another export": ("export.json", False),
        "an empty folder": ("", False),
    }

    @pytest.mark.parametrize("case", CAME)
    def test_it_is_left_as_it_is(self, case: str, actor: Path, tmp_path: Path) -> None:
        name, overwrite = self.CAME[case]

        def somebody(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
            (tmp_path / "out").mkdir()
            if name:
                (tmp_path / "out" / name).write_text("precious")
            return {}

        with pytest.raises(ConfigError):
            pipeline.export(ExportOptions(actor, tmp_path / "out", overwrite=overwrite), checks=[somebody])
        assert [path.name for path in (tmp_path / "out").iterdir()] == ([name] if name else [])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]

    @pytest.mark.parametrize("has_call", [True, False])
    def test_not_even_in_the_last_moment(self, has_call: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the last look at the name: the rename itself replaces nothing."""
        if not has_call:
            monkeypatch.setattr(swap.ctypes, "CDLL", lambda *_, **__: object())
        part_and_out(tmp_path)
        with pytest.raises(ConfigError, match="which exists"):
            swap.take_final_name(tmp_path / "part", tmp_path / "out", overwrite=False)
        assert (tmp_path / "out/content").read_text() == "out"


class TestWhatKilledExportsLeft:
    def test_kill_leaves_nothing_at_the_name_and_the_next_export_tidies_up(self, actor: Path, tmp_path: Path) -> None:
        child = started(actor, tmp_path, "time.sleep(60)")
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        assert not (tmp_path / "out").exists()
        pipeline.export(ExportOptions(actor, tmp_path / "out"), checks=[])
        assert len(list(tmp_path.glob("out.part-*"))) == 1  # it lives, so what is its own is left alone
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert len(list(tmp_path.glob("out.part-*"))) == 1
        pipeline.export(ExportOptions(actor, tmp_path / "out", overwrite=True), checks=[])
        assert [path.name for path in tmp_path.glob("out*")] == ["out"]

    @pytest.mark.parametrize("name", ["out.part-0123abcd", "out.part-7", "out.part-notes"])
    def test_what_is_no_part_folder_stays(self, name: str, actor: Path, tmp_path: Path) -> None:
        """A file of that name, and folders that hold no lock: nobody knows that they are an export's."""
        if name.endswith("d"):
            (tmp_path / name).write_text("a file")
        else:
            (tmp_path / name).mkdir()
        pipeline.export(ExportOptions(actor, tmp_path / "out"), checks=[])
        assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", name]


def part_and_out(folder: Path) -> None:
    for name in ("part", "out"):
        (folder / name).mkdir()
        (folder / name / "content").write_text(name)


@pytest.mark.parametrize("has_exchange", [True, False])
def test_folders_change_places(has_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_exchange:
        monkeypatch.setattr(swap.ctypes, "CDLL", lambda *_, **__: object())
    part_and_out(tmp_path)
    swap.take_final_name(tmp_path / "part", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/content").read_text() == "part"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_change_of_places_that_fails_halfway_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap.ctypes, "CDLL", lambda *_, **__: object())
    part_and_out(tmp_path)
    rename = os.rename

    def second_fails(source: Path, target: Path) -> None:
        if source == tmp_path / "part":
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(swap.os, "rename", second_fails)
    with pytest.raises(OSError, match="the disk is gone"):
        swap.take_final_name(tmp_path / "part", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/content").read_text() == "out"


@pytest.mark.parametrize("kind", ["folders", "files"])
def test_a_disk_that_syncs_no_folder_will_do(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE and SMB answer EINVAL for folders. A file that is not on the disk is another matter."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (kind == "folders"):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(swap.os, "fsync", fsync)
    part_and_out(tmp_path)
    with contextlib.nullcontext() if kind == "folders" else pytest.raises(OSError, match="Invalid argument"):
        swap.take_final_name(tmp_path / "part", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/content").read_text() == ("part" if kind == "folders" else "out")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process_of_a_proof_behind(number: signal.Signals, actor: Path, tmp_path: Path) -> None:
    (tmp_path / "fake_proof.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    export = started(actor, tmp_path)
    assert export.stdout is not None
    assert export.stdout.readline() == "writing\n"
    proof = psutil.Process(int(export.stdout.readline()))
    export.send_signal(number)
    assert export.wait(20) == (128 + number if number == signal.SIGTERM else -number)
    export.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        proof.wait(20)
    if number == signal.SIGTERM:  # after a kill the next export tidies up
        assert list(tmp_path.glob("out*")) == []
