"""The log of scored responses survives kills, resumes and odd text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medix_verl.scored_log import ScoredLog


def test_each_line_is_whole_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rollouts" / "scored.jsonl"
    log = ScoredLog(path)
    log.write({"step": 1, "answer": "5 µg\nper day"})
    (line,) = path.read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert (record["step"], record["answer"]) == (1, "5 µg\nper day")
    assert isinstance(record["time"], float)


def test_a_resume_appends_and_ends_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "ans')
    log = ScoredLog(path)
    log.write({"step": 3})
    log.close()
    lines = path.read_text().splitlines()
    assert [line[:10] for line in lines[:2]] == ['{"step": 1', '{"step": 2']
    assert json.loads(lines[2])["step"] == 3


@pytest.mark.parametrize("content", ["", '{"step": 1}\n'])
def test_a_whole_file_is_left_as_it_is(content: str, tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text(content)
    ScoredLog(path).close()
    assert path.read_text() == content


@example("\ud83d")
@given(st.text(st.characters(exclude_categories=())))  # half of a surrogate pair too: a judge's JSON reply may hold one
def test_any_text_is_written_and_read_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("log") / "scored.jsonl"
    log = ScoredLog(path)
    log.write({"raw": text, "path": path})
    log.close()
    (line,) = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    # Two halves that follow each other read back as the one character they encode.
    assert json.loads(line)["raw"] == json.loads(json.dumps(text))
