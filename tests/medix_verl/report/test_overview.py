"""Above the fold: one health, figures judged by the run's own settings, the summary, and the pair before and after."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medix.errors import DataError
from medix_verl.cli import app
from medix_verl.report.charts import Chart, Level
from medix_verl.report.overview import before_after, evaluations, links, status, summarise, tiles
from medix_verl.report.run_folder import Metrics, RunFolder, load_run
from medix_verl.training.watch import PEARSON

WARN = {"level": "warn", "step": "3", "message": "low", "fix": "raise it"}
STOP = {"level": "stop", "step": "4", "message": "gone", "fix": "restart"}


@pytest.mark.parametrize(
    ("guards", "monitor", "level", "text"),
    [
        ([], "ok", "ok", "All health checks passed"),
        ([], "alert", "alert", "monitor: short answers"),
        ([], "watch", "watch", "monitor: short answers"),
        ([WARN], "ok", "watch", "1 warning of the guards"),
        ([WARN], "alert", "alert", "1 warning of the guards; monitor: short answers"),
        ([WARN, STOP], "ok", "alert", "Stopped by a guard at step 4: gone"),
    ],
)
def test_the_header_tells_the_worst_of_guards_and_monitors(
    guards: list[dict[str, str]], monitor: Level, level: str, text: str
) -> None:
    run = RunFolder(Path("run"), Metrics([{"step": 1, "data": {}}]), [], guards=guards)
    assert status(run, [Chart("x", "Short answers", "", [], level=monitor)]) == (level, text)


@pytest.mark.parametrize(
    ("pearson", "watchdog", "level"),
    [
        (0.9995, {}, "ok"),
        (0.995, {}, "watch"),
        (0.98, {}, "alert"),
        (0.995, {"pearson_warn_below": 0.99, "pearson_stop_below": 0.9}, "ok"),
        (0.85, {"pearson_warn_below": 0.99, "pearson_stop_below": 0.9}, "alert"),
        (0.6, {"pearson_warn_below": 0.99, "pearson_stop_below": -1}, "watch"),
    ],
)
def test_agreement_is_judged_by_the_run_s_own_guard(pearson: float, watchdog: dict[str, float], level: str) -> None:
    rows = [{"step": 1, "data": {PEARSON: pearson}}]
    run = RunFolder(Path("run"), Metrics(rows), [], config={"medix": {"watchdog": watchdog}})
    assert {tile.label: tile.level for tile in tiles(run)}["Rollout and actor agree"] == level


def scored(step: int, sample_id: str, score: float, modality: float = 1.0, **over: Any) -> dict[str, Any]:
    scores = {"score": score, "acc": score, "format": 1.0, "modality": modality}
    row = {"step": step, "split": "val", "sample_id": sample_id, "group": f"{step}-{sample_id}", "session": 0}
    return {**row, "response": f"<answer>{score}</answer>", "scores": scores, **over}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


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
        scored(2, "a", 0.75, group="again"),  # validated again after a resume
    ]
    (run / "rollouts" / "scored.jsonl").write_text(lines(records))
    steps = [
        {"step": 0, "data": {"val-core/acc": 0.1}},
        {"step": 1, "data": {"timing_s/step": 4.0, PEARSON: 0.9999}},
        {"step": 2, "data": {"timing_s/step": 8.0, PEARSON: 0.9995}},
        {"step": 2, "data": {"timing_s/step": 5.0, PEARSON: 0.9997}},
        {"step": 3, "data": {PEARSON: None}},  # a correlation that was not finite
    ]
    (run / "metrics.jsonl").write_text(lines(steps))
    (run / "versions.json").write_text('{"verl": "0.9.1"}')
    (run / "config.yaml").write_text("algorithm: {adv_estimator: grpo}\n")
    return run


def test_figures_before_and_after(run_dir: Path) -> None:
    assert summarise(load_run(run_dir), 61.26) == {
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


@pytest.mark.parametrize(("step", "measured"), [(0, ("0.50", "-")), (2, ("-", "0.50")), (None, ("-", "-"))])
def test_a_run_with_one_validation_shows_what_was_measured(
    step: int | None, measured: tuple[str, str], run_dir: Path
) -> None:
    """`trainer.val_before_train=false` had ended a recipe with an error when all else was done."""
    rows = [scored(1, "a", 1.0, split="train"), *([] if step is None else [scored(step, "a", 0.5)])]
    (run_dir / "rollouts" / "scored.jsonl").write_text(lines(rows))
    result = CliRunner().invoke(app, ["summary", str(run_dir), "--seconds-total", "61"])
    assert result.exit_code == 0, result.output
    row = next(line for line in result.output.splitlines() if " reward " in line)
    assert tuple(re.findall(r"[0-9.]+|-", row)) == measured
    json.loads((run_dir / "summary.json").read_text(), parse_constant=lambda word: pytest.fail(word))


def test_a_run_without_a_step_has_no_summary(run_dir: Path) -> None:
    (run_dir / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="no training step"):
        summarise(load_run(run_dir), 1.0)


def test_the_summary_command_names_what_the_run_itself_says(run_dir: Path) -> None:
    (run_dir / "config.yaml").write_text(
        "algorithm: {adv_estimator: grpo}\nactor_rollout_ref: {actor: {policy_loss: {loss_mode: gspo}}}\n"
    )
    result = CliRunner().invoke(app, ["summary", str(run_dir), "--seconds-total", "61"])
    assert result.exit_code == 0, result.output
    assert json.loads((run_dir / "summary.json").read_text())["algorithm"] == "gspo"
    assert "2 steps of gspo" in result.stdout
    assert "0.88" in result.stdout
    again = CliRunner().invoke(app, ["summary", str(run_dir), "--seconds-total", "3"], env={"COLUMNS": "60"})
    # Nothing was trained meanwhile, so it took 61 s as before.
    assert json.loads((run_dir / "summary.json").read_text())["seconds_total"] == 61
    assert "…" not in again.stdout


def test_the_pair_is_the_prompt_that_gained_most(run_dir: Path) -> None:
    found = before_after(load_run(run_dir))
    assert found is not None
    # "a" gains 0.75, "b" 0.5.
    assert [(group.sample_id, group.step, group.mean) for group in found["pair"]] == [("a", 0, 0.0), ("a", 2, 0.75)]
    assert (found["better"], found["worse"], found["all"]) == (2, 0, 2)


def test_evaluations_and_links_are_those_of_the_folder(synthetic_run: Path) -> None:
    good, bad = synthetic_run / "eval" / "trained", synthetic_run / "eval" / "damaged"
    for folder in (good, bad):
        folder.mkdir(parents=True)
    estimate = {"mean": 0.5, "low": 0.25, "high": 0.75}
    (good / "scores.json").write_text(json.dumps({"tasks": {"sample": {"items": 4, "estimate": estimate}}}))
    (good / "evaluation.html").touch()
    (bad / "scores.json").write_text("{")
    run = load_run(synthetic_run)
    (row,) = evaluations(run)
    assert (row["task"], row["score"], row["interval"]) == ("sample", "50.0%", "25.0% to 75.0%")
    assert row["page"] == "eval/trained/evaluation.html"
    assert run.notes == ["eval/damaged/scores.json: unreadable, left out"]
    assert [path for path, _ in links(run)] == ["rollouts/scored.jsonl"]
    data = synthetic_run.parent / "prepared"
    data.mkdir()
    (data / "data.html").touch()
    assert [path for path, _ in links(run, data)] == ["rollouts/scored.jsonl", "../prepared/data.html"]


def test_a_guard_log_of_the_run_is_read(make_synthetic_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_synthetic_run(tmp_path, steps=2)
    (run / "guards.jsonl").write_text(lines([STOP]))
    assert status(load_run(run), [])[0] == "alert"
