"""A study for real: two variants, one seed, four steps. As a drill it is killed in the second and called again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medix_verl.training.metrics_file import read_metrics
from tests.engine.conftest import ROOT, SMALL

STEPS, STUDY_LIMIT_S = 4, 800
VARIANTS = {"judge_only": ["medix.reward.components.embed_accuracy.weight=0"], "gspo": ["algorithm=gspo"]}

pytestmark = pytest.mark.timeout(2 * STUDY_LIMIT_S)


@pytest.fixture
def study(two_rank_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's file, from the model and the data of the first run."""
    folder = tmp_path_factory.mktemp("study")
    knobs = {"MODEL": f"{two_rank_run}/tiny-vlm", "DATA": f"{two_rank_run}/data", "EXPORT": "0", "EVAL": "0"}
    content = {
        "name": "small", "question": "Does it run?", "truth": f"{ROOT}/examples/sample_data/test.jsonl",
        "steps": STEPS, "seeds": [0], "knobs": knobs, "variants": VARIANTS,
        "overrides": [*SMALL, "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"],
    }  # fmt: skip
    (folder / "study.yaml").write_text(json.dumps(content))
    return folder


def start(study: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "medix_verl.cli", "ablate", str(study / "study.yaml"), "--out", str(study / "out")]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def steps_of(study: Path, variant: str) -> list[int]:
    rows = read_metrics(study / "out" / "runs" / variant / "seed_0" / "metrics.jsonl")
    return [row["step"] for row in rows if "timing_s/step" in row["data"]]


def kill_in(study: Path, variant: str) -> None:
    """Start the study, and end it with kill -9 once the variant has made a step."""
    process, limit = start(study), time.monotonic() + STUDY_LIMIT_S
    try:
        while not steps_of(study, variant):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < limit
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "killed",
    [pytest.param(False, marks=pytest.mark.engine), pytest.param(True, marks=pytest.mark.drill)],
    ids=["in peace", "killed"],
)
def test_a_study_ends_with_its_table_and_a_killed_one_repeats_no_finished_run(killed: bool, study: Path) -> None:
    first = study / "out" / "runs" / "judge_only" / "seed_0" / "metrics.jsonl"
    if killed:
        kill_in(study, "gspo")
        before = first.read_bytes()
    said, _ = start(study).communicate(timeout=STUDY_LIMIT_S)
    if killed:
        assert "1 of 2: judge_only, seed 0: done" in said, said
        assert first.read_bytes() == before
    for variant in VARIANTS:
        assert max(steps_of(study, variant), default=0) == STEPS, said
    with (study / "out" / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "all"]
    assert {(row["variant"], row["samples"]) for row in rows} == {("judge_only", "123"), ("gspo", "123")}
    assert {row["figure"] for row in rows} >= {"paid", "true", "gap", "falsely paid by llm_accuracy"}
    assert (study / "out" / "study.html").stat().st_size > 10_000
