"""metrics.jsonl over resumes, and with lines that a kill has spoilt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medix_verl.training.metrics_file import read_metrics


def line(step: int, **data: float | None) -> str:
    return json.dumps({"step": step, "data": data}) + "\n"


ODD = ['{"step": 2, "da', "[]", "7", '{"step": 3}', '{"data": {}}', '{"step": 4, "data": null}', "", "\ufffd"]
CASES = {
    "no file": (None, []),
    "unreadable lines are passed over": (
        line(1, a=1.0) + "\n".join(ODD) + "\n" + line(5, a=5.0),
        [(1, {"a": 1.0}), (5, {"a": 5.0})],
    ),
    "after a resume the later attempt counts": (
        line(1, a=1.0) + line(2, a=2.0) + line(3, a=3.0) + line(2, a=20.0) + line(3, a=30.0),
        [(1, {"a": 1.0}), (2, {"a": 20.0}), (3, {"a": 30.0})],
    ),
    "validation and training of one step are one row": (
        line(10, val=0.5) + line(10, train=0.4),
        [(10, {"val": 0.5, "train": 0.4})],
    ),
}


@pytest.mark.parametrize(("content", "expected"), CASES.values(), ids=CASES)
def test_rows(content: str | None, expected: list[tuple[int, dict[str, float]]], tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    assert [(row["step"], row["data"]) for row in read_metrics(path)] == expected
