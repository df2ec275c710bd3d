"""The closing summary of a run, with the arithmetic stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medix.errors import DataError
from medix_verl.cli import app
from medix_verl.report.summary import held_out_means, read_scored, summarise
from medix_verl.training.guards import PEARSON


def scored(step: int, sample_id: str, score: float, modality: float = 1.0, split: str = "val") -> dict[str, Any]:
    scores = {"score": score, "acc": score, "format": 1.0, "modality": modality}
    return {"step": step, "split": split, "sample_id": sample_id, "scores": scores}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    (run / "rollouts").mkdir(parents=True)
    records = [
        scored(0, "a", 0.0),
        scored(0, "b", 0.5, modality=-1.0),  # text only: modality does not apply
        scored(1, "a", 1.0, split="train"),
        scored(2, "a", 0.25),
        scored(2, "b", 1.0, modality=-1.0),
        scored(2, "a", 0.75),  # validated again after a resume
    ]
    (run / "rollouts" / "scored.jsonl").write_text(lines(records))
    steps = [
        {"step": 0, "data": {"val-core/acc": 0.1}},
        {"step": 1, "data": {"timing_s/step": 4.0, PEARSON: 0.9999}},
        {"step": 2, "data": {"timing_s/step": 8.0, PEARSON: 0.9995}},
        {"step": 2, "data": {"timing_s/step": 5.0, PEARSON: 0.9997}},
    ]
    (run / "metrics.jsonl").write_text(lines(steps))
    (run / "versions.json").write_text('{"verl": "0.9.1"}')
    return run


def test_figures_before_and_after(run_dir: Path) -> None:
    assert summarise(run_dir, 61.26, "grpo") == {
        "val_reward_before": 0.25,  # (0 + 0.5) / 2
        "val_reward_after": 0.875,  # (0.75 + 1) / 2, the later record of "a" counts
        "accuracy_before": 0.25,
        "accuracy_after": 0.875,
        "format_before": 1.0,
        "format_after": 1.0,
        "modality_before": 1.0,  # of "a" alone
        "modality_after": 1.0,
        "steps": 2,
        "seconds_total": 61.3,
        "seconds_per_step_median": 4.5,  # of 4 and 5: the second attempt's step 2 counts
        "rollout_actor_probs_pearson_corr_min": 0.9997,
        "algorithm": "grpo",
        "versions": {"verl": "0.9.1"},
    }


def test_a_correlation_that_was_not_finite_is_left_out_of_the_least(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(lines([{"step": 3, "data": {"timing_s/step": 5.0, PEARSON: None}}]))
    assert summarise(run_dir, 1.0, "grpo")["rollout_actor_probs_pearson_corr_min"] == 0.9997


def test_a_run_without_a_second_validation_has_no_summary(run_dir: Path) -> None:
    (run_dir / "rollouts" / "scored.jsonl").write_text(lines([scored(0, "a", 0.0), scored(1, "a", 1.0, split="train")]))
    with pytest.raises(DataError, match="2 training steps and 1 validations"):
        summarise(run_dir, 1.0, "grpo")


def test_training_rollouts_are_not_held_out() -> None:
    assert held_out_means([scored(1, "a", 1.0, split="train")]) == {}


def test_a_line_cut_within_a_character_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    half = json.dumps({"response": "µg"}, ensure_ascii=False).encode()
    path.write_bytes(b'{"step": 1}\n' + half[: half.index("µ".encode()) + 1] + b'\n{"step": 2}\n')
    assert [record["step"] for record in read_scored(path)] == [1, 2]


def test_the_command_writes_the_file_and_prints_the_table(run_dir: Path) -> None:
    result = CliRunner().invoke(app, ["summary", str(run_dir), "--algorithm", "gspo", "--seconds-total", "61"])
    assert result.exit_code == 0, result.output
    assert json.loads((run_dir / "summary.json").read_text())["algorithm"] == "gspo"
    assert "2 steps of gspo" in result.stdout
    assert "0.88" in result.stdout
