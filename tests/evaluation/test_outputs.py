"""Comparison, agreement of judges, ledger, leaderboard zip, and how images travel."""

from __future__ import annotations

import asyncio
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from evaluation.backends import Decoding, Question
from evaluation.backends.endpoint import EndpointBackend, chat_messages
from evaluation.compare import compare, describe
from evaluation.generate import GenerateOptions, generate
from evaluation.item import Item
from evaluation.judging.judge import JudgeOptions
from evaluation.judging.stage import judge
from evaluation.leaderboard import write_leaderboard_zip
from evaluation.ledger import Prices, read_prices
from evaluation.prompting import read_response, render
from evaluation.run_folder import RunFolder
from evaluation.score import score
from evaluation.task import load_tasks
from medix.errors import ConfigError, EvaluationError
from reward_fns.scorers.endpoints import EndpointOptions


def evaluated(out: Path, questions: Path, url: str, model: str = "fake") -> RunFolder:
    folder = RunFolder(out)
    backend = EndpointBackend(EndpointOptions(urls=(url,), retries=0), model, Decoding(32), deadline_s=5)
    options = GenerateOptions((load_tasks()["pubmedqa"],), "bare", Decoding(32), None, {"pubmedqa": questions}, 4)
    asyncio.run(generate(folder, backend, options))
    return folder


def test_compare_by_hand(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: "B"
    first = evaluated(tmp_path / "a", questions, fake_server.url)
    fake_server.reply = lambda prompt, asked: "A" if any(f"treatment {n} " in prompt for n in (0, 1, 2)) else "B"
    second = evaluated(tmp_path / "b", questions, fake_server.url)
    result = compare(first, second)
    task = result["tasks"]["pubmedqa"]
    # Right answers: none and three of twelve. By abstract the differences sum to 2, 1, 0, 0, 0, 0.
    assert (task["mean_a"], task["mean_b"]) == (0.0, 0.25)
    assert (task["only_a"], task["only_b"], task["mcnemar_p"]) == (0, 3, 0.25)
    assert task["p_value"] == 0.5  # two abstracts differ: two of the four sign patterns reach the sum
    assert task["difference"]["clusters"] == 6
    assert "B - A +25.0 points" in describe(result)
    assert result["differing_settings"] == []


def test_runs_on_other_questions_are_not_compared(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: "B"
    first = evaluated(tmp_path / "a", questions, fake_server.url)
    row = next(first.generations.latest())
    other = RunFolder(tmp_path / "b")
    other.update_settings("generate", first.settings()["generate"])
    other.generations.path.write_text(json.dumps({**row, "question": "Something else?"}) + "\n")
    with pytest.raises(EvaluationError, match="asking something else"):
        compare(first, other)


def test_the_first_judge_scores_and_the_others_measure_agreement(tmp_path, questions, fake_server, fake_judge):
    fake_server.reply = lambda prompt, asked: "It may well help."
    folder = evaluated(tmp_path / "a", questions, fake_server.url)

    def answer(prompt: str, asked: int) -> Any:
        strict = fake_judge.bodies[-1]["model"] == "strict"
        return "NO" if strict and "treatment 3 " in prompt else "YES"

    fake_judge.reply = answer
    endpoint = EndpointOptions(urls=(fake_judge.url,), retries=0)
    judges = [JudgeOptions("lenient", endpoint), JudgeOptions("strict", endpoint)]
    asyncio.run(judge(folder, judges, rubric="verdict"))
    result = score(folder)
    assert result["tasks"]["pubmedqa"]["estimate"]["mean"] == 1.0
    agreement = result["agreement"]["questions"]
    assert (agreement["compared"], agreement["disagreements"]) == (12, 1)
    # 23 YES, 1 NO: 1 - 23 * 2 / (2 * 23 * 1) = 0.
    assert agreement["krippendorff_alpha"] == pytest.approx(0.0)


def test_ledger_counts_tokens_and_money(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: "A"
    folder = evaluated(tmp_path / "a", questions, fake_server.url)
    ledger = score(folder, Prices(model_in=1.0, model_out=10.0))["ledger"]
    assert (ledger["model"]["prompt_tokens"], ledger["model"]["completion_tokens"]) == (120, 24)
    assert ledger["model"]["money"] == pytest.approx((120 * 1 + 24 * 10) / 1e6)
    assert ledger["judges"]["money"] is None
    assert ledger["seconds"]["generate"] > 0


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "-1,2", "nan,1"])
def test_malformed_prices_are_refused(text):
    with pytest.raises(ConfigError):
        read_prices(text)
    assert read_prices("1,2,3,4") == Prices(1, 2, 3, 4)


def test_leaderboard_zip(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: "A" if "treatment 0 " in prompt else "B"
    folder = evaluated(tmp_path / "a", questions, fake_server.url)
    target = write_leaderboard_zip(folder, "my model", tmp_path)
    assert re.fullmatch(r"[0-9a-f]{8}_my-model_submission\.zip", target.name)
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == [
            f"my-model/my-model{end}" for end in (".jsonl", "_eval.jsonl", "_score.txt")
        ]
        rows = [json.loads(line) for line in archive.read("my-model/my-model_eval.jsonl").splitlines()]
        text = archive.read("my-model/my-model_score.txt").decode()
    assert rows[0]["id"].startswith("pubmedqa_")
    assert sum(row["evaluation"]["score"] for row in rows) == 1
    assert text == "pubmedqa: 0.0833\nOverall: 0.0833\n"


def test_an_unfinished_evaluation_makes_no_leaderboard_zip(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: "I wonder."
    folder = evaluated(tmp_path / "a", questions, fake_server.url)
    with pytest.raises(EvaluationError, match="12 of 12 unscored"):
        write_leaderboard_zip(folder, "m", tmp_path)


def test_images_stand_at_their_slots_and_a_literal_slot_in_a_question_is_none():
    item = Item("t", "1", "Is <image> a tag?", "yes", images=(b"\x89PNG1", b"\xff\xd8"))
    for style in ("bare", "training"):
        (message,) = chat_messages(Question("k", item, render(item, style)))
        parts = message["content"]
        urls = [part["image_url"]["url"][:15] for part in parts if part["type"] == "image_url"]
        assert urls == ["data:image/png;", "data:image/jpeg"], style
        assert "a tag?" in parts[-1]["text"], style


@pytest.mark.parametrize(
    ("name", "style", "response", "answer"),
    [
        ("training form", "training", "<OTHER><thinking>x</thinking><answer>B</answer>", "B"),
        ("training, no form", "training", "B", None),
        (
            "training, two answers",
            "training",
            "<OTHER><thinking>x</thinking><answer>A</answer><answer>B</answer>",
            None,
        ),
        ("bare", "bare", " pneumonia ", "pneumonia"),
        ("bare after reasoning", "bare", "<think>or effusion</think> pneumonia", "pneumonia"),
        ("bare with an answer block", "bare", "<OTHER><thinking>x</thinking><answer>B</answer>", "B"),
        ("bare, empty", "bare", "  ", None),
    ],
)
def test_answers_in_responses(name, style, response, answer):
    assert read_response(response, style)[0] == answer, name


@pytest.mark.engine
def test_batched_answers_of_a_local_model_are_those_asked_one_by_one(tmp_path):
    from data_prep.sources.sample import read_sample_set
    from evaluation.backends.local import LocalBackend
    from evaluation.loaders import load_items
    from examples.tiny_vlm.build import build_tiny_vlm

    build_tiny_vlm(list(read_sample_set("train"))[:48], tmp_path, steps=3)
    items = [item for item in load_items(load_tasks()["sample"], limit=6) if isinstance(item, Item)]
    questions = [Question(item.id, item, render(item, "training")) for item in items]

    async def answers(batch_size: int) -> dict[str, str | None]:
        backend = LocalBackend(tmp_path, Decoding(24), batch_size)
        return {answered.question.key: answered.text async for answered in backend.answer(questions)}

    assert asyncio.run(answers(6)) == asyncio.run(answers(1))
