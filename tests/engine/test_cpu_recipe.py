"""The CPU recipe for real: veRL, Ray, vLLM, FSDP2, an HTTP judge and an embedder, for a few steps.

Minutes each. Run by `make test` (`pytest -m engine`).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest
from aiohttp import web

from examples.rule_judge import server
from examples.rule_judge.server import RuleJudgeApp
from medix.jsonl import JsonLines
from medix_verl.training.metrics_file import read_metrics
from medix_verl.training.watch import PEARSON
from tests.engine.conftest import ROOT, TIMEOUT_S, run_recipe

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2 * TIMEOUT_S)]


def training_steps(run: Path) -> list[int]:
    return [row["step"] for row in read_metrics(run / "metrics.jsonl") if "timing_s/step" in row["data"]]


def test_two_ranks_train_checkpoint_export_and_evaluate(two_rank_run: Path) -> None:
    assert training_steps(two_rank_run) == [1, 2, 3]
    shards = list((two_rank_run / "checkpoints/global_step_3/actor").glob("model_world_size_2_rank_*.pt"))
    assert len(shards) == 2
    assert list((two_rank_run / "export").glob("*.safetensors"))
    summary = json.loads((two_rank_run / "summary.json").read_text())
    assert summary["steps"] == 3
    assert summary["algorithm"] == "grpo"
    for name in ("val_reward", "accuracy", "format", "modality"):
        assert 0.0 <= summary[f"{name}_before"] <= 1.0
        assert 0.0 <= summary[f"{name}_after"] <= 1.0
    assert summary["versions"]["verl"] == "0.9.1"


def test_rollout_and_actor_hold_the_same_model(two_rank_run: Path) -> None:
    """The `load_format` trap shows itself as 0.7 to 0.8 here."""
    values = [row["data"][PEARSON] for row in read_metrics(two_rank_run / "metrics.jsonl") if PEARSON in row["data"]]
    assert len(values) == 3
    assert min(values) >= 0.999


def test_every_response_is_scored_by_all_components(two_rank_run: Path) -> None:
    train = [row for _, row in JsonLines(two_rank_run / "rollouts/scored.jsonl") if row["split"] == "train"]
    assert len(train) == 3 * 16 * 4  # steps x prompts x responses
    for row in train:
        assert {"llm_accuracy", "embed_accuracy", "modality", "format", "spread"} <= row["scores"].keys()
        assert 0.0 <= row["scores"]["score"] <= 1.0
        # Modality does not apply to text-only rows, and to no others.
        assert (row["scores"]["modality"] == -1.0) == (row["modality"] is None)


def test_training_logs_every_component(two_rank_run: Path) -> None:
    data = next(row["data"] for row in read_metrics(two_rank_run / "metrics.jsonl") if row["step"] == 2)
    for name in ("score", "llm_accuracy", "embed_accuracy", "modality", "format"):
        for statistic in ("mean", "std", "zero_std_group_fraction"):
            assert f"reward/{name}/{statistic}" in data


QUESTIONS = {row["question"] for _, row in JsonLines(ROOT / "examples/sample_data/train.jsonl")}


class RefusingJudge(RuleJudgeApp):
    """Refuses the first prompt about a training sample, as a judge with a content filter does: each time anew."""

    asked: ClassVar[list[str]] = []

    async def complete(self, request: web.Request) -> web.Response:
        text = str((await request.json())["messages"])
        if text not in self.asked and any(question in text for question in QUESTIONS):
            self.asked.append(text)
        if self.asked[:1] == [text]:
            error = {"code": "content_filter", "message": "The prompt was filtered by the content management policy."}
            return web.json_response({"error": error}, status=400)
        return await super().complete(request)


@pytest.fixture(scope="module")
def resumed(two_rank_run: Path) -> tuple[Path, list[str], int]:
    """One more step of the same run, one response a micro-batch, with a judge that refuses; and the lines before it."""
    before = (two_rank_run / "metrics.jsonl").read_text().splitlines()
    again = ["trainer.n_gpus_per_node=2", "trainer.val_before_train=false"]
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    single = [f"{actor}.use_dynamic_bsz=false", f"{actor}.ppo_micro_batch_size_per_gpu=1"]
    single += [f"{rollout}.log_prob_micro_batch_size_per_gpu=1"]
    # Siblings that say the same are refused with it: more than 2 of the 100 that the share is of at least.
    single += ["++medix.scorer.max_refused_share=0.1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "RuleJudgeApp", RefusingJudge)
        with server.start_rule_judge() as url:
            finished = run_recipe(two_rank_run, *again, *single, STEPS="4", EXPORT="0", EVAL="0", JUDGE_URL=url)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return two_rank_run, before, len(RefusingJudge.asked)


def test_the_same_command_resumes_from_the_checkpoint(resumed: tuple[Path, list[str], int]) -> None:
    """Step 4 is trained from global_step_3, and no earlier step again."""
    run, before, _ = resumed
    after = (run / "metrics.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    assert [json.loads(line)["step"] for line in after[len(before) :]] == [4]


def test_micro_batches_without_a_picture_are_trained_on(resumed: tuple[Path, list[str], int]) -> None:
    """Each response is a micro-batch of its own, on two ranks: one may hold a picture while the other holds none."""
    scored = [row for _, row in JsonLines(resumed[0] / "rollouts/scored.jsonl") if row["step"] == 4]
    assert {row["modality"] is None for row in scored} == {True, False}
    data = read_metrics(resumed[0] / "metrics.jsonl")[-1]["data"]
    assert data[PEARSON] >= 0.999
    assert data["actor/grad_norm"] > 0


def test_a_judge_that_refuses_one_call_costs_one_group(resumed: tuple[Path, list[str], int]) -> None:
    run, _, asked = resumed
    refused = [row for _, row in JsonLines(run / "rollouts/refused.jsonl")]
    assert {row["step"] for row in refused} == {4}
    assert all("content" in row["reason"] for row in refused)
    data = read_metrics(run / "metrics.jsonl")[-1]["data"]
    assert data["reward/refused_groups"] == 1
    print(f"{asked} prompts asked of the judge, one refused")


def test_no_process_is_left(two_rank_run: Path) -> None:
    found = subprocess.run(["pgrep", "-f", str(two_rank_run)], capture_output=True, text=True)
    assert found.stdout.split() == []
