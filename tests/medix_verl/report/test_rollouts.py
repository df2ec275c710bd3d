"""Reading `scored.jsonl`: groups, advantages, and everything that a run in progress or a killed one leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_verl.report.rollouts import SHOWN_CHARS, Group, Response, read_groups
from medix_verl.report.run_folder import load_run


def row(session: int = 0, score: float = 0.0, response: str = "<X_RAY>", **over: Any) -> dict[str, Any]:
    base = {"step": 1, "split": "train", "group": "u", "session": session, "sample_id": "s", "question": "q?"}
    return {**base, "reference": "g", "modality": "X_RAY", "response": response, "scores": {"score": score}, **over}


def all_responses(groups: list[Group]) -> list[Response]:
    return [response for group in groups for response in group.responses]


def read(folder: Path, *rows: dict[str, Any], tail: bytes = b"") -> tuple[list[Group], list[str]]:
    path, notes = folder / "scored.jsonl", []
    path.write_bytes("".join(json.dumps(r) + "\n" for r in rows).encode() + tail)
    return read_groups(path, notes), notes


@pytest.mark.parametrize(
    ("scores", "split", "divided", "advantages"),
    [
        # mean 0.25; sample variance (0.75^2 + 3 x 0.25^2) / 3 = 0.25, std 0.5: 0.75 / 0.5 = 1.5, -0.25 / 0.5 = -0.5
        ([1.0, 0.0, 0.0, 0.0], "train", True, [1.5, -0.5, -0.5, -0.5]),
        ([1.0, 0.0], "train", False, [0.5, -0.5]),
        ([0.4, 0.4], "train", True, [0.0, 0.0]),
        ([1.0, 0.0], "val", True, [None, None]),
    ],
    ids=["in standard deviations of the group", "the distance itself", "no spread", "validation has none"],
)
def test_advantage_is_the_distance_from_the_groups_mean(
    scores: list[float], split: str, divided: bool, advantages: list[float | None], tmp_path: Path
) -> None:
    read(tmp_path, *(row(i, score, split=split) for i, score in enumerate(scores)))
    (group,) = read_groups(tmp_path / "scored.jsonl", [], divided)
    found = [response.advantage for response in group.responses]
    assert found == (advantages if split == "val" else pytest.approx(advantages, abs=1e-5))
    assert (group.is_training, group.no_spread) == (split == "train", scores == [0.4, 0.4])


def test_a_response_scored_again_after_a_resume_counts_once_as_scored_last(tmp_path: Path) -> None:
    groups, _ = read(tmp_path, row(0, 0.1), row(1, 0.2), row(0, 0.9))
    assert [r.reward for r in groups[0].responses] == [0.9, 0.2]


def test_a_step_done_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    groups, notes = read(
        tmp_path,
        row(0, 0.1),
        row(0, 0.2, step=2),
        row(0, 0.9, step=2, group="v"),
        row(0, 0.5, group="w", reference="other"),
    )
    # Step 2 was asked twice; the group "w" has another reference, so it is another prompt.
    assert [(group.uid, group.mean) for group in groups] == [("u", 0.1), ("w", 0.5), ("v", 0.9)]
    assert notes == ["scored.jsonl: 1 groups of steps that were done again are left out"]


MISFITS = {
    "no response": {"drop": "response"},
    "response is no text": {"response": None},
    "no scores": {"drop": "scores"},
    "scores are a list": {"scores": [1]},
    "no total": {"scores": {"format": 1.0}},
    "total is NaN": {"scores": {"score": float("nan")}},
    "step is text": {"step": "last"},
    "step is infinite": {"step": float("inf")},
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS.keys())
def test_a_line_that_is_no_scored_response_is_counted_and_passed_over(tmp_path: Path, change: dict[str, Any]) -> None:
    bad = row(1, 0.5, **{key: value for key, value in change.items() if key != "drop"})
    bad.pop(change.get("drop", ""), None)
    groups, notes = read(tmp_path, row(0, 1.0), bad)
    assert len(all_responses(groups)) == 1
    assert notes == ["scored.jsonl: 1 line without a scored response passed over"]


def test_half_a_line_at_the_end_is_a_run_still_writing_and_strange_detail_is_left_out(tmp_path: Path) -> None:
    strange = row(0, 1.0, detail={"judge": "YES", "details": {"format": 3}})
    (group,), notes = read(tmp_path, strange, tail=b'{"step": 1, "respo')
    assert group.responses[0].verdict is None
    assert notes == ["scored.jsonl: the last line is half written"]


def test_a_long_response_is_cut_but_parsed_whole(tmp_path: Path) -> None:
    text = f"<X_RAY><thinking>{'a' * 1_000_000}</thinking><answer>yes</answer>"
    groups, _ = read(tmp_path, row(0, 1.0, text))
    response = groups[0].responses[0]
    assert (len(response.text), response.cut_chars) == (SHOWN_CHARS, len(text) - SHOWN_CHARS)
    assert (response.answer, response.thinking_chars) == ("yes", 1_000_000)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_read_without_an_error(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("bytes") / "scored.jsonl"
    path.write_bytes(b"\n".join([*parts, json.dumps(row(0, 1.0)).encode(), b""]))
    assert any(response.reward == 1.0 for response in all_responses(read_groups(path, [])))


@pytest.mark.parametrize(
    "text",
    ["{", "\x00", "a: [", "!!python/object:os.system {}", "[" * 3000],
    ids=["json", "zero", "yaml", "tag", "deep"],
)
@pytest.mark.parametrize("name", ["config.yaml", "versions.json", "reward_table.json", "metrics.jsonl"])
def test_an_unreadable_file_is_a_note(synthetic_run: Path, name: str, text: str) -> None:
    (synthetic_run / name).write_text(text + "\n")
    (note,) = load_run(synthetic_run).notes
    assert note.startswith(name)
