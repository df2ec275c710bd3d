"""metrics.jsonl: half-written lines, resumes, and a file that is still being written."""

from __future__ import annotations

import json
from pathlib import Path

from medix.jsonl import GrowingFile
from medix_verl.training.metrics_file import read_metrics


def line(step: int, **data: float | None) -> str:
    return json.dumps({"step": step, "data": data}) + "\n"


def test_the_reader_gives_each_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / "000.jsonl"
    reader = GrowingFile(path)
    assert reader.new_rows() == []  # not there yet
    whole, half = line(1, a=0.5), line(2, a=0.7)
    path.write_text(whole + half[:9])
    assert [row["step"] for row in reader.new_rows()] == [1]
    assert reader.new_rows() == []
    with path.open("a") as file:
        file.write(half[9:] + "\n" + line(3, a=0.9))
    assert [row["step"] for row in reader.new_rows()] == [2, 3]


def test_a_line_cut_within_a_character_waits_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "000.jsonl"
    content = ('{"step": 1, "data": {"µ": 1}}' + "\n").encode()
    cut = content.index("µ".encode()) + 1
    path.write_bytes(content[:cut])
    reader = GrowingFile(path)
    assert reader.new_rows() == []
    path.write_bytes(content)
    assert reader.new_rows() == [{"step": 1, "data": {"µ": 1}}]


def test_what_stood_there_before_is_left_out_and_spoilt_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text(line(1, a=0.5))
    reader = GrowingFile(path, from_end=True)
    with path.open("a") as file:
        file.write('{"step": 2, "da\n7\n' + line(3, a=0.9))
    assert [row["step"] for row in reader.new_rows()] == [3]


def test_unreadable_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    odd = ['{"step": 2, "da', "[]", "7", '{"step": 3}', '{"data": {}}', '{"step": 4, "data": null}', "", "\ufffd"]
    path.write_text(line(1, a=1.0) + "\n".join(odd) + "\n" + line(5, a=5.0))
    assert read_metrics(path) == [{"step": 1, "data": {"a": 1.0}}, {"step": 5, "data": {"a": 5.0}}]


def test_bytes_that_are_no_text_spoil_one_line_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1, a=1.0).encode() + b"\xff\xfe{\n" + line(2, a=2.0).encode())
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_after_a_resume_the_later_attempt_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1, a=1.0) + line(2, a=2.0) + line(3, a=3.0) + line(2, a=20.0) + line(3, a=30.0))
    assert [row["data"]["a"] for row in read_metrics(path)] == [1.0, 20.0, 30.0]


def test_validation_and_training_of_one_step_are_one_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(10, val=0.5) + line(10, train=0.4))
    assert read_metrics(path) == [{"step": 10, "data": {"val": 0.5, "train": 0.4}}]


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
