"""JSON lines survive kills, resumes, odd text, and readers that come while a line is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medix.errors import ConfigError
from medix.files import hold_folder
from medix.jsonl import GrowingFile, JsonLines, JsonlWriter


def line(step: int) -> str:
    return json.dumps({"step": step, "text": "µ"}, ensure_ascii=False) + "\n"


def steps(rows: list[dict[str, int]]) -> list[int]:
    return [row["step"] for row in rows]


def test_a_follower_gives_each_whole_line_once(tmp_path: Path) -> None:
    path, reader = tmp_path / "rows.jsonl", GrowingFile(tmp_path / "rows.jsonl")
    assert reader.new_rows() == []  # not there yet
    first, second = line(1).encode(), line(2).encode()
    cut = second.index("µ".encode()) + 1  # within a character
    path.write_bytes(first + second[:cut])
    assert [steps(reader.new_rows()) for _ in range(2)] == [[1], []]
    path.write_bytes(first + second + b"7\n\xff\xfe{\n" + line(3).encode())
    assert steps(reader.new_rows()) == [2, 3]


def test_a_follower_may_begin_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line(1))
    reader = GrowingFile(path, from_end=True)
    with path.open("a") as file:
        file.write('{"step": 2, "da\n' + line(3))
    assert steps(reader.new_rows()) == [3]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("", ['{"step": 9}']),
        ('{"step": 1}\n', ['{"step": 1}', '{"step": 9}']),
        ('{"step": 1}\n{"step": 2, "an', ['{"step": 1}', '{"step": 2, "an', '{"step": 9}']),
    ],
    ids=["empty", "whole", "half a line is ended first"],
)
def test_a_writer_appends_whole_lines(content: str, lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with JsonlWriter(path) as writer:
        writer.append({"step": 9})
        assert path.read_text().splitlines() == lines  # before it is closed
    rows = JsonLines(path)
    assert len(list(rows)) + rows.unreadable == len(lines)


def test_an_exclusive_writer_is_alone(tmp_path: Path) -> None:
    for _ in range(2):  # free again once the writer is closed
        with JsonlWriter(tmp_path / "rows.jsonl", exclusive=True), pytest.raises(ConfigError, match="Another process"):
            JsonlWriter(tmp_path / "rows.jsonl", exclusive=True)
        with hold_folder(tmp_path), pytest.raises(ConfigError, match="Another run"), hold_folder(tmp_path):
            pass


@example("\ud83d")
@given(st.text(st.characters(exclude_categories=())))  # half of a surrogate pair too: a judge's JSON reply may hold one
def test_any_text_is_written_and_read_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("log") / "rows.jsonl"
    with JsonlWriter(path) as writer:
        writer.append({"raw": text, "path": path})
    (row,) = [row for _, row in JsonLines(path)]
    # Two halves that follow each other read back as the one character they encode.
    assert row["raw"] == json.loads(json.dumps(text))
