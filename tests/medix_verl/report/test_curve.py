"""`curve.png` and `curve.csv`."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from medix.errors import DataError
from medix.processes import child_environment
from medix_verl.report.curve import write_curve

ROWS = (
    {"step": 0, "data": {"val-core/src/acc/mean@1": 0.25}},
    {"step": 1, "data": {"reward/score/mean": 0.5, "reward/score/std": 0.1, "reward/own/mean": 0.75}},
    {"step": 2, "data": {"reward/score/mean": float("nan"), "reward/llm_accuracy_ok/mean": 1.0}},
)


def write_rows(folder: Path, tail: str = "") -> Path:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "metrics.jsonl").write_text(text + tail)
    return folder


def test_csv_holds_what_was_logged_and_gaps_where_nothing_finite_was(tmp_path: Path) -> None:
    _, path = write_curve(write_rows(tmp_path))
    table = list(csv.DictReader(path.open()))
    assert [row["step"] for row in table] == ["0", "1"]  # step 2 has nothing that is a number
    assert table[1]["reward"] == "0.5"
    assert table[1]["own"] == "0.75"  # a component of one's own is found by itself
    assert table[0]["reward"] == ""
    assert table[0]["validation accuracy, src"] == "0.25"
    assert "llm_accuracy_ok" not in table[0]  # a flag, not a component


def test_png_is_a_picture_of_the_stated_size(tmp_path: Path) -> None:
    path, _ = write_curve(write_rows(tmp_path))
    with Image.open(path) as image:
        assert image.size == (1260, 644)  # 9.0 x 4.6 inches at 140 dpi
        assert len(image.convert("L").getcolors(256) or []) > 10


@pytest.mark.parametrize(
    "tail", ['{"step": 3, "da', "\x00\x00\n", '[1]\n"x"\n'], ids=["half a line", "zeros", "not rows"]
)
def test_a_run_still_being_written_has_a_curve(tmp_path: Path, tail: str) -> None:
    _, path = write_curve(write_rows(tmp_path, tail))
    assert path.read_text().count("\n") == 3


def test_a_run_without_steps_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no logged step"):
        write_curve(tmp_path)


@pytest.mark.slow
def test_a_matplotlibrc_of_the_working_directory_is_not_followed(tmp_path: Path) -> None:
    """`cd RUN; medix report .` in a foreign run: its settings would have run LaTeX on the texts of the picture."""
    write_rows(tmp_path)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.dpi: 9000\n")
    code = "from pathlib import Path; from medix_verl.report.curve import write_curve; write_curve(Path())"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True, env=child_environment(PATH=""))
    assert (tmp_path / "curve.png").stat().st_size > 1000
