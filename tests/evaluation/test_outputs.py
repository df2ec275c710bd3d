"""Comparison, agreement of judges, ledger, leaderboard zip, and how images travel."""

from __future__ import annotations

import asyncio
import hashlib
import json
import zipfile

import pytest

from evaluation.backends import Decoding, Question
from evaluation.backends.endpoint import chat_messages
from evaluation.compare import compare, describe
from evaluation.item import Item
from evaluation.leaderboard import write_leaderboard_zip
from evaluation.options import Scoring
from evaluation.prompting import read_response, render
from evaluation.run_folder import RunFolder
from evaluation.score import score
from evaluation.task import load_items, load_tasks, select_tasks
from medix.errors import ConfigError, EvaluationError
from medix.prompts import load_prompt
from tests.evaluation.conftest import answered, have_judged


def test_compare_by_hand(tmp_path, questions, fake_server):
    first = answered(tmp_path / "a", questions, fake_server, "B")
    three = ("treatment 0 ", "treatment 1 ", "treatment 2 ")
    reply = lambda prompt, asked: "A" if any(treatment in prompt for treatment in three) else "B"  # noqa: E731
    second = answered(tmp_path / "b", questions, fake_server, reply)
    result = compare(first, second)
    task = result["tasks"]["pubmedqa"]
    # Right answers: none and three of twelve. By abstract the differences sum to 2, 1, 0, 0, 0, 0.
    assert (task["mean_a"], task["mean_b"]) == (0.0, 0.25)
    assert (task["only_a"], task["only_b"], task["mcnemar_p"]) == (0, 3, 0.25)
    assert task["p_value"] == 0.5  # two abstracts differ: two of the four sign patterns reach the sum
    assert task["difference"]["clusters"] == 6
    assert "B - A +25.0 points" in describe(result)
    assert result["differing_settings"] == {}


@pytest.mark.parametrize(
    ("name", "changes", "judges", "differing", "left_out"),
    [
        ("prompt", {"prompt": "training"}, ("j", "j"), {"prompt", "template"}, None),
        ("decoding", {"temperature": 0.5}, ("j", "j"), {"decoding.temperature"}, None),
        ("judge", {}, ("j", "k"), {"judges"}, None),
        ("items", {"limit": 5}, ("j", "j"), {"limit"}, "7 items only in A"),
        ("nothing", {}, ("j", "j"), set(), None),
    ],
)
def test_what_differs_beside_the_models_is_named(
    tmp_path, questions, fake_server, fake_judge, name, changes, judges, differing, left_out
):
    reply = "<OTHER><thinking>t</thinking><answer>It may well help.</answer>"
    runs = [answered(tmp_path / "a", questions, fake_server, reply)]
    runs.append(answered(tmp_path / "b", questions, fake_server, reply, "other", **changes))
    for folder, model in zip(runs, judges, strict=True):
        have_judged(folder.path, fake_judge.url, model)
    result = compare(*runs)
    assert set(result["differing_settings"]) == differing, name
    text = describe(result)
    assert ("also differ" in text) == bool(differing)
    assert left_out is None or left_out in text
    assert max(map(len, text.splitlines())) < 500


def test_runs_on_other_questions_are_not_compared(tmp_path, questions, fake_server):
    first = answered(tmp_path / "a", questions, fake_server, "B")
    row = json.loads(first.generations.path.read_text().splitlines()[0])
    other = RunFolder(tmp_path / "b")
    other.note_asked("pubmedqa", [row["key"]])
    settings = first.settings()["generate"]
    settings["tasks"]["pubmedqa"]["items"] = 1
    other.update_settings("generate", settings)
    other.generations.path.write_text(json.dumps({**row, "question": "Something else?"}) + "\n")
    with pytest.raises(EvaluationError, match="asks something else"):
        compare(first, other)


def test_the_first_judge_scores_and_the_others_measure_agreement(tmp_path, questions, fake_server, fake_judge):
    folder = answered(tmp_path / "a", questions, fake_server, "It may well help.")
    fake_judge.reply = lambda prompt, asked: (
        "NO" if fake_judge.bodies[-1]["model"] == "strict" and "treatment 3 " in prompt else "YES"
    )
    have_judged(folder.path, fake_judge.url, "lenient", "strict")
    result = score(folder)
    assert result["tasks"]["pubmedqa"]["estimate"]["mean"] == 1.0
    agreement = result["agreement"]["questions"]
    assert (agreement["compared"], agreement["disagreements"]) == (12, 1)
    # 23 YES, 1 NO: 1 - 23 * 2 / (2 * 23 * 1) = 0.
    assert agreement["krippendorff_alpha"] == pytest.approx(0.0)


def test_ledger_counts_tokens_and_money(tmp_path, questions, fake_server):
    folder = answered(tmp_path / "a", questions, fake_server, "A")
    ledger = score(folder, Scoring(prices="1,10"))["ledger"]
    assert (ledger["model"]["prompt_tokens"], ledger["model"]["completion_tokens"]) == (120, 24)
    assert ledger["model"]["money"] == pytest.approx((120 * 1 + 24 * 10) / 1e6)
    assert ledger["judges"]["money"] is None
    assert ledger["seconds"]["generate"] > 0


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "-1,2", "nan,1"])
def test_malformed_prices_are_refused(text):
    with pytest.raises(ConfigError):
        Scoring(prices=text).read_prices()
    assert Scoring(prices="1,2,3,4").read_prices() == [1, 2, 3, 4]
    assert Scoring().read_prices() == []


def scored_as_released(archive: zipfile.ZipFile, name: str) -> dict[str, float]:
    """The released scorer, written from its description: a task is an id without its last number."""
    by_task: dict[str, list[float]] = {}
    for line in archive.read(f"{name}/{name}_eval.jsonl").splitlines():
        row = json.loads(line)
        assert {"id", "question", "answer", "response", "answer_idx"} < set(row)
        by_task.setdefault(row["id"].rpartition("_")[0], []).append(row["evaluation"]["score"])
    top = {task: 5 if task.startswith("mimic_cxr") else 1 for task in by_task}
    means = {task: sum(scores) / (top[task] * len(scores)) for task, scores in by_task.items()}
    return means | {"Overall": sum(means.values()) / len(means)}


def test_leaderboard_zip_by_the_released_rules(tmp_path, questions, fake_server):
    reply = lambda prompt, asked: "A" if "treatment 0 " in prompt else "B"  # noqa: E731
    folder = answered(tmp_path / "a", questions, fake_server, reply)
    rows_file = folder.generations.path  # as if what was asked first had been answered last
    rows_file.write_text("".join(reversed(rows_file.read_text().splitlines(keepends=True))))
    target = write_leaderboard_zip(folder, "My-Model 8B", tmp_path)
    name = "My_Model_8B"
    digest = hashlib.md5(f"{name}_submission".encode()).hexdigest()[:8]
    assert target.name == f"{digest}_{name}_submission.zip"
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == [f"{name}/{name}{end}" for end in (".jsonl", "_eval.jsonl", "_score.txt")]
        rows = [json.loads(line) for line in archive.read(f"{name}/{name}.jsonl").splitlines()]
        text = archive.read(f"{name}/{name}_score.txt").decode()
        assert scored_as_released(archive, name) == pytest.approx({"pubmedqa": 1 / 12, "Overall": 1 / 12})
    assert [row["id"] for row in rows] == [f"pubmedqa_{n}" for n in range(12)]
    assert [f"treatment {n} " in row["question"] for n, row in enumerate(rows)] == [True] * 12  # the set's order
    assert rows[0]["question"] == "RESULTS: Abstract 0.\n\nDoes treatment 0 help?\n\nChoices:\nA. yes\nB. no\nC. maybe"
    assert text.splitlines() == [f"Model: {name}", "pubmedqa: 8.33 %", "Overall: 8.33 %"]


def test_mmmu_and_the_released_names_of_tasks(tmp_path, questions, fake_server):
    folder = answered(tmp_path / "a", questions, fake_server, "A")
    settings = folder.settings()["generate"]
    assert {task.describe()["released_name"] for task in select_tasks(["vlm"]) if "paper" in task.groups} == {
        "slake_vqa", "rad_vqa", "path_vqa", "pmc_vqa", "pmc_vqa_hard", "mimic_cxr_report_generation"
    }  # fmt: skip
    (task,) = settings["tasks"].values()
    del task["released_name"]  # as one of MMMU's subjects, which the released scorer does not know
    folder.update_settings("generate", settings)
    with pytest.raises(EvaluationError, match="none of the paper's 17 tasks"):
        write_leaderboard_zip(folder, "m", tmp_path)


@pytest.mark.parametrize(
    ("name", "reply", "changes", "found"),
    [
        ("unjudged", "I wonder.", {}, "12 of 12 items are unscored"),
        ("limited", "A", {"limit": 3}, "limited to 3 items"),
    ],
)
def test_an_unfinished_evaluation_makes_no_leaderboard_zip(
    tmp_path, questions, fake_server, name, reply, changes, found
):
    folder = answered(tmp_path / "a", questions, fake_server, reply, **changes)
    with pytest.raises(EvaluationError, match=found):
        write_leaderboard_zip(folder, "m", tmp_path)


def test_images_stand_at_their_slots_and_a_literal_slot_in_a_question_is_none():
    item = Item("t", "1", "Is <image> a tag?", "yes", images=(b"\x89PNG1", b"\xff\xd8"))
    for style, template in (("bare", None), ("training", load_prompt())):
        (message,) = chat_messages(Question("k", item, render(item, template)))
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
    from examples.tiny_vlm.build import build_tiny_vlm

    build_tiny_vlm(list(read_sample_set("train"))[:48], tmp_path, steps=3)
    items = [item for item in load_items(load_tasks()["sample"], limit=6) if isinstance(item, Item)]
    questions = [Question(item.id, item, render(item, load_prompt()), 24) for item in items]

    async def answers(batch_size: int) -> dict[str, str | None]:
        backend = LocalBackend(tmp_path, Decoding(24), batch_size)
        return {answered.question.key: answered.text async for answered in backend.answer(questions)}

    assert asyncio.run(answers(6)) == asyncio.run(answers(1))
