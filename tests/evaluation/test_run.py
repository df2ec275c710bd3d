"""`medix eval run` as a user types it: every task right against a stub, faults told before the first question, and
nothing that shrinks in silence."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evaluation.backends import Question
from evaluation.backends.endpoint import chat_messages
from evaluation.command import eval_app
from evaluation.item import Item
from evaluation.prompting import render
from evaluation.report import write_report
from evaluation.report_metrics import report_metrics
from evaluation.run_folder import RunFolder
from evaluation.score import score
from evaluation.task import load_items, load_tasks
from medix.errors import ConfigError, EvaluationError, MedixError
from tests.evaluation.layouts import png, write_layout

TASKS = load_tasks()
_FIELD = re.compile(r"\[\[([A-Z ]+)\]\]\n(.*?)\n\[\[/\1\]\]", re.DOTALL)


def run(command: str, *arguments: Any) -> str:
    result = CliRunner().invoke(eval_app, [command, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def key(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def fair_judge(prompt: str, asked: int) -> str:
    """Compare the candidate with the reference as texts; of the criteria the first is met, the second is not."""
    fields = dict(_FIELD.findall(prompt))
    grades = {"semantic": 5, "reasoning": None, "context": None, "why": "same"}
    if "CRITERION" in fields:
        return json.dumps({"why": "", "met": "Frightens" not in fields["CRITERION"]})
    if "CANDIDATE" not in fields:
        return "Hello."  # the look before the first question
    same = fields["CANDIDATE"] == re.sub(r"^[A-Z]\. ", "", fields["REFERENCE"])
    report = "score: 5" in prompt
    return json.dumps(grades | ({"score": 5 * same} if report else {"verdict": "YES" if same else "NO"}))


@pytest.mark.parametrize("task", list(TASKS))
def test_a_stub_that_replies_from_the_reference_has_everything_right(tmp_path, fake_server, fake_judge, task):
    folder = write_layout(task, tmp_path / "data")
    items = [item for item in load_items(TASKS[task], folder, 24) if isinstance(item, Item)]
    answers = {
        key(chat_messages(Question("", i, render(i, None)))[0]["content"]): i.letter or i.reference for i in items
    }
    fake_server.reply = lambda prompt, asked: answers.get(prompt, "hello")
    fake_judge.reply = fair_judge
    data = ["--data", f"{task}={folder}"] if folder else ["--limit", 24]
    run("run", "--model", "stub", "--model-url", fake_server.url, "--tasks", task, "--out", tmp_path / "out", *data,
        "--judge-url", fake_judge.url, "--judge-model", "fair")  # fmt: skip
    result = json.loads((tmp_path / "out" / "scores.json").read_text())
    (figures,) = result["tasks"].values()
    assert (figures["estimate"]["mean"], figures["items"], result["unscored"]) == (1.0, len(items), 0)
    assert (tmp_path / "out" / "evaluation.html").read_text().rstrip().endswith("</html>")


def test_the_result_names_the_commit_of_the_data(tmp_path, fake_server):
    """A set without a pinned revision is read as the hub has it today."""
    fake_server.reply = lambda prompt, asked: "A"
    folder = write_layout("medqa", tmp_path / "snapshots" / ("c0ffee" * 7)[:40])
    for place, revision in ((folder, folder.name), (write_layout("medqa", tmp_path / "copy"), "")):
        out = tmp_path / f"out-{revision}"
        run("run", "--model", "stub", "--model-url", fake_server.url, "--tasks", "medqa", "--out", out,
            "--data", f"medqa={place}", "--judge-url", "rule-judge")  # fmt: skip
        settings = json.loads((out / "scores.json").read_text())["settings"]["generate"]
        assert settings["tasks"]["medqa"]["revision"] == revision


def arguments(tmp_path: Path, server: Any, task: str = "medqa", **changes: Any) -> list[Any]:
    folder = write_layout(task, tmp_path / "data")
    given: dict[str, Any] = {"model": "stub", "model-url": server.url, "tasks": task, "out": tmp_path / "out"}
    given |= {"data": f"{task}={folder}", "judge-url": "rule-judge", "retries": 0, "timeout": 2} | changes
    return [part for name, value in given.items() if value is not None for part in (f"--{name}", value)]


@pytest.mark.parametrize(
    ("name", "task", "changes", "kind", "message"),
    [
        ("no judge", "medqa", {"judge-url": None}, ConfigError, "use --judge-url rule-judge"),
        ("a judge without a model", "medqa", {"judge-url": "http://127.0.0.1:9"}, ConfigError, "0 judge models"),
        ("a judge that is not there", "medqa", {"judge-url": "http://127.0.0.1:9", "judge-model": "j"},
         EvaluationError, "Check --judge-url and --judge-model"),
        ("another model of the rule-judge", "medqa", {"judge-model": "j"}, ConfigError, "has no model 'j'"),
        ("the rule-judge for reports", "iu_xray", {}, ConfigError, "can not grade by the rubric report"),
        ("the rule-judge for criteria", "healthbench", {}, ConfigError, "can not grade by the rubric points"),
        ("an even number of votes", "medqa", {"votes": 2}, ConfigError, "2 votes can tie"),
        ("no such task", "medqa", {"tasks": "medq"}, ConfigError, "Did you mean 'medqa'"),
        ("data of a task that is not asked", "medqa", {"tasks": "medmcqa"}, ConfigError, "'medqa', which is not asked"),
        ("no such prompt", "medqa", {"prompt": "none.txt"}, ConfigError, "none.txt"),
        ("no such judge prompts", "medqa", {"judge-prompts": "none.yaml"}, ConfigError, "no file of judge prompts"),
        ("a backend that takes no address", "medqa", {"backend": "transformers"}, ConfigError, "takes no --model-url"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_the_first_question(tmp_path, fake_server, name, task, changes, kind, message):
    with pytest.raises(kind) as caught:
        run("run", *arguments(tmp_path, fake_server, task, **changes))
    assert message in str(caught.value), name
    assert fake_server.bodies == []


@pytest.mark.parametrize("inside", [".", "run"])
def test_answers_never_lie_in_the_data(inside, tmp_path, fake_server):
    given = arguments(tmp_path, fake_server)
    data = Path(given[given.index("--data") + 1].partition("=")[2])
    given[given.index("--out") + 1] = data / inside
    with pytest.raises(ConfigError, match="lies in the data of medqa"):
        run("run", *given)
    assert [body["messages"][0]["content"] for body in fake_server.bodies] == ["Hello"]  # is the endpoint there?


def test_a_wrong_name_of_the_model_is_told_at_once(tmp_path, fake_server):
    fake_server.reply = lambda prompt, asked: 404
    with pytest.raises(EvaluationError, match=r"Model 'stub' can not be asked.*Check --model-url and --model"):
        run("run", *arguments(tmp_path, fake_server))
    assert len(fake_server.bodies) == 1
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_folder_that_is_a_checkpoint_is_sent_to_export(tmp_path, fake_server):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    changes = {"model": tmp_path / "run", "model-url": None, "backend": "transformers"}
    with pytest.raises(ConfigError, match="Export it first: medix export"):
        run("run", *arguments(tmp_path, fake_server, **changes))


def test_the_models_own_training_prompt_is_used(tmp_path, fake_server):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "training_prompt.txt").write_text("Ours. {images}{question}\nThink.")
    fake_server.reply = lambda prompt, asked: "<OTHER><thinking>t</thinking><answer>B</answer>"
    run("run", *arguments(tmp_path, fake_server, model=tmp_path / "model", prompt="training"))
    assert all(body["messages"][0]["content"].startswith("Ours. Q?") or "R?" in body["messages"][0]["content"]
               for body in fake_server.bodies[1:])  # fmt: skip
    assert RunFolder(tmp_path / "out").settings()["generate"]["template"].startswith("Ours.")
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["tasks"]["medqa"]["estimate"]["mean"] == 1.0


def test_a_task_file_of_ones_own_is_run(tmp_path, fake_server):
    (tmp_path / "rows.csv").write_text("question,answer,patient\nWhich organ?,the liver,p1\nWhich side?,left,p2\n")
    task = {"name": "own", "source": f"csv:{tmp_path / 'rows.csv'}", "splits": ["train"], "summary": "ours",
            "judging": "verdict", "clusters": "patient"}  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(task))
    fake_server.reply = lambda prompt, asked: "liver" if "organ" in prompt else "right"
    text = run("run", *arguments(tmp_path, fake_server, tasks=tmp_path / "own.yaml", data=None))
    assert "| own | all | 2 | 0 | 0 | 50.0 % |" in text
    assert "average" not in text  # one task: one figure, one interval
    assert "clustered t" in text


def slake_with_half_its_pictures(folder: Path) -> None:
    (folder / "imgs").mkdir(parents=True)
    (folder / "imgs" / "x0.png").write_bytes(png(1))
    rows = [
        {"qid": n, "img_name": f"x{n % 2}.png", "question": f"Organ {n}?", "answer": "Liver", "q_lang": "en",
         "answer_type": "OPEN", "modality": "CT"}
        for n in range(10)
    ]  # fmt: skip
    (folder / "test.json").write_text(json.dumps(rows))


def test_refused_rows_are_part_of_the_result(tmp_path, fake_server):
    slake_with_half_its_pictures(tmp_path / "slake")
    fake_server.reply = lambda prompt, asked: "Liver"
    given = arguments(tmp_path, fake_server, "vqa_rad", tasks="slake", data=f"slake={tmp_path / 'slake'}")
    with pytest.raises(EvaluationError, match=r"5 of 10 rows of slake are refused \(missing_image: 5\)"):
        run("run", *given)
    result = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (result["items"], result["refused"], result["tasks"]["slake"]["refused"]) == (5, 5, {"missing_image": 5})
    assert "Refused rows: 5" in (tmp_path / "out" / "evaluation.html").read_text()
    assert "| slake | all | 5 | 0 | 5 | 100.0 %" in (tmp_path / "out" / "scores.md").read_text()
    assert "5 of 10 rows" in (tmp_path / "out" / "scores.md").read_text()
    text = run("score", "--out", tmp_path / "out", "--max-refused", 0.6)
    assert "no result" not in text
    with pytest.raises(EvaluationError, match="5 rows were refused"):
        run("leaderboard", "--out", tmp_path / "out", "--name", "m")


def test_a_task_all_of_whose_rows_are_refused_is_an_error_before_anything_is_asked(tmp_path, fake_server):
    slake_with_half_its_pictures(tmp_path / "slake")
    (tmp_path / "slake" / "imgs" / "x0.png").unlink()
    given = arguments(tmp_path, fake_server, "vqa_rad", tasks="slake", data=f"slake={tmp_path / 'slake'}")
    with pytest.raises(MedixError, match=r"all 10 rows are refused|images"):
        run("run", *given)
    assert len(fake_server.bodies) <= 1


def test_each_task_has_its_own_length_whatever_else_is_asked(tmp_path, fake_server):
    fake_server.reply = lambda prompt, asked: "A"
    pharmacy = write_layout("mmmu_pharmacy", tmp_path / "pharmacy")
    run("run", *arguments(tmp_path, fake_server, tasks="medqa,mmmu_pharmacy"), "--data", f"mmmu_pharmacy={pharmacy}")
    lengths = [body["max_tokens"] for body in fake_server.bodies[1:]]
    assert sorted(lengths) == [2048, 2048, 8192, 8192]
    asked = len(fake_server.bodies)
    run("run", *arguments(tmp_path / "again", fake_server, out=tmp_path / "out"))
    assert len(fake_server.bodies) == asked + 1  # only the look before: medqa's answers are kept


def finished(tmp_path: Path, server: Any) -> RunFolder:
    server.reply = lambda prompt, asked: "I guess x"
    run("run", *arguments(tmp_path, server))
    return RunFolder(tmp_path / "out")


def damaged(path: Path, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))


def scored(score: bytes) -> Any:
    return lambda data: re.sub(rb'"score": [01]\.0', b'"score": ' + score, data)


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("half a line", "generations.jsonl", lambda d: d[:-20], "lacks 1 of the 2 items asked of medqa"),
        ("a hole of zeros", "generations.jsonl", lambda d: b"\0" * 200 + d[200:], "lacks 1 of the 2 items"),
        ("emptied", "generations.jsonl", lambda d: b"", "lacks 2 of the 2 items"),
        ("another form", "generations.jsonl", lambda d: d.replace(b'"kind"', b'"sort"'), "kind: field required"),
        ("a picture elsewhere", "generations.jsonl", lambda d: d.replace(b'"images": []', b'"images": ["../../x"]'),
         "generations.jsonl is damaged: images.0"),
        ("the list of what was asked", "asked/medqa.txt", lambda d: d[:25], "names 1 items, but 2 were asked"),
        ("no list of what was asked", "asked/medqa.txt", lambda d: b"", "names 0 items, but 2 were asked"),
        ("settings cut short", "run.json", lambda d: d[:100], "run.json can not be read"),
        ("settings of another form", "run.json", lambda d: b'{"generate": {}}', "run.json is damaged: generate.run"),
        ("settings that are deep", "run.json", lambda d: b"[" * 100_000, "run.json can not be read"),
        ("a task that is a path", "run.json", lambda d: d.replace(b'"medqa": {', b'"../x": {'), "run.json is damaged"),
        ("a score of 5", "judgements.jsonl", scored(b'5'), "is damaged"),
        ("a score of -3", "judgements.jsonl", scored(b'-3'), "is damaged"),
        ("a score that is no number", "judgements.jsonl", scored(b'NaN'),
         "judgements.jsonl is damaged"),
        ("emptied judgements", "judgements.jsonl", lambda d: b"", r"2 of 2 items are unscored"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_message_that_names_the_file(tmp_path, fake_server, name, file, change, message):
    folder = finished(tmp_path, fake_server)
    damaged(folder.path / file, change)
    with pytest.raises(MedixError) as caught:
        score(folder)
    assert message in str(caught.value), name


@pytest.mark.parametrize("content", ["{}", "[]", '{"settings": {"generate": 3}}', "{", '{"tasks": {"x": 1}}'])
def test_a_damaged_scores_file_is_one_message(tmp_path, fake_server, content):
    folder = finished(tmp_path, fake_server)
    (folder.path / "scores.json").write_text(content)
    with pytest.raises(MedixError, match=r"scores\.json"):
        write_report(folder)


def test_a_picture_that_is_a_link_stays_out_of_the_report(tmp_path, fake_server):
    fake_server.reply = lambda prompt, asked: "lung"
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"SECRET-BYTES")
    run("run", *arguments(tmp_path, fake_server, "vqa_rad"))
    folder = RunFolder(tmp_path / "out")
    for picture in folder.images.iterdir():
        picture.unlink()
        picture.symlink_to(secret)
    report = write_report(folder).read_text()
    assert "U0VDUkVU" not in report


RELEASED = """
question: "Question: {question} Correct: {reference} Predicted: {candidate} Score 1 or 0 as JSON."
report: "Reference: {reference} Predicted: {candidate} Score 0 to 5 as JSON."
again: "Think again."
rounds: 3
"""


def test_three_rounds_of_one_conversation_in_another_wording(tmp_path, fake_server, fake_judge):
    fake_server.reply = lambda prompt, asked: "B"  # a letter: the rules would be certain, but this protocol judges all
    (tmp_path / "released.yaml").write_text(RELEASED)
    fake_judge.reply = lambda prompt, asked: json.dumps({"score": 0 if prompt.startswith("Question") else 1})
    changes = {"judge-url": fake_judge.url, "judge-model": "j", "judge-prompts": tmp_path / "released.yaml"}
    run("run", *arguments(tmp_path, fake_server, protocol="released", **changes))
    asked = [[message["content"] for message in body["messages"]] for body in fake_judge.bodies[1:]]
    assert sorted(map(len, asked)) == [1, 1, 3, 3, 5, 5]
    assert all(texts[2::2] == ["Think again."] * (len(texts) // 2) for texts in asked)
    result = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert result["tasks"]["medqa"]["decided_by"] == {"judge": 2}
    assert result["tasks"]["medqa"]["estimate"]["mean"] == 1.0  # 0, 1, 1: the majority


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no reference", 'question: "{candidate}"', "lacks {reference}"),
        ("an even number", 'question: "{reference} {candidate}"\nagain: x\nrounds: 2', "asks for 2 rounds"),
        ("nothing for further rounds", 'question: "{reference} {candidate}"\nrounds: 3', "asks for 3 rounds"),
        ("an unknown field", 'question: "{reference} {candidate}"\nroundz: 3', "Did you mean 'rounds'"),
    ],
)
def test_malformed_judge_prompts_are_refused(tmp_path, fake_server, name, text, message):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        run("run", *arguments(tmp_path, fake_server, **{"judge-prompts": tmp_path / "p.yaml"}))
    assert message in str(caught.value), name


def test_the_list_of_tasks_needs_no_model():
    assert "slake_zh" in run("run", "--tasks", "list")


def test_report_metrics_beside_the_judge(tmp_path, fake_server, fake_judge):
    fake_server.reply = lambda prompt, asked: "Clear."
    fake_judge.reply = fair_judge
    given = arguments(tmp_path, fake_server, "iu_xray", **{"judge-url": fake_judge.url, "judge-model": "j"})
    text = run("run", *given, "--report-metrics", "bleu,rouge_l")
    metrics = json.loads((tmp_path / "out" / "scores.json").read_text())["report_metrics"]["iu_xray"]
    # One of one word is right, and one of the reference's three is found: 2 * 1 * 1/3 / (1 + 1/3) = 0.5.
    assert metrics["rouge_l"]["mean"] == pytest.approx(0.5)
    assert 0 < metrics["bleu"]["mean"] < 0.5
    assert "iu_xray, rouge_l: 50.0 %" in text


@pytest.mark.parametrize(
    ("metric", "message"), [("radgraph", "pip install radgraph"), ("meteor", "no report metric 'meteor'")]
)
def test_a_report_metric_that_is_not_there_is_told_before_the_first_question(tmp_path, fake_server, metric, message):
    with pytest.raises(ConfigError, match=message):
        run("run", *arguments(tmp_path, fake_server), "--report-metrics", metric)
    assert fake_server.bodies == []


class Ratescore:
    """Called as RaTEScore 0.6.0 is: its default is a GPU, lists only, and 0.5 for a text without an entity."""

    def __init__(self, bert_model: str = "", eval_model: str = "", batch_size: int = 1, use_gpu: bool = True) -> None:
        assert not use_gpu

    def compute_score(self, candidate_list, reference_list):
        assert isinstance(candidate_list, list)
        assert isinstance(reference_list, list)
        return [
            0.5 if not text else float(text == right)
            for text, right in zip(candidate_list, reference_list, strict=True)
        ]


class F1RadGraph:
    """Called as radgraph 0.1.18 is: rewards come second of four."""

    def __init__(self, reward_level, model_type=None, **kwargs):
        assert reward_level == "partial"

    def __call__(self, refs, hyps):
        return 0.0, [float(r == h) for r, h in zip(refs, hyps, strict=True)], [], []


@pytest.mark.parametrize("name", ["ratescore", "radgraph"])
def test_metrics_from_packages_that_load_models(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    packages = {"RaTEScore": SimpleNamespace(RaTEScore=Ratescore), "radgraph": SimpleNamespace(F1RadGraph=F1RadGraph)}
    for module, package in packages.items():
        monkeypatch.setitem(sys.modules, module, package)
    rows = [
        SimpleNamespace(
            row=SimpleNamespace(kind="report", task="t", reference="Clear.", cluster=answer),
            decision=SimpleNamespace(answer=answer),
        )
        for answer in ("Clear.", "Opaque.", "", None)
    ]
    assert report_metrics(rows, [name])["t"][name]["mean"] == pytest.approx(0.25)
    assert report_metrics(rows[2:], [name])["t"][name]["mean"] == 0
