"""What goes wrong in a long evaluation: each drill has to end, to say what is unscored, and to lose nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evaluation.backends import Decoding
from evaluation.backends.endpoint import EndpointBackend
from evaluation.generate import GenerateCounts, GenerateOptions, generate
from evaluation.judging.judge import JudgeOptions
from evaluation.judging.stage import JudgeCounts, judge
from evaluation.run_folder import RunFolder
from evaluation.score import Budget, score
from evaluation.task import load_tasks
from medix.errors import ConfigError, EvaluationError, MedixError
from reward_fns.scorers.endpoints import EndpointOptions

MEDIX = [sys.executable, "-c", "from medix_verl.cli import main; main()"]


def endpoint(url: str, **changes: Any) -> EndpointOptions:
    settings: dict[str, Any] = {"timeout_s": 0.4, "retries": 1, "backoff_s": 0.01, "max_in_flight": 4} | changes
    return EndpointOptions(urls=(url,), **settings)


def ask(out: Path, questions: Path, url: str, **changes: Any) -> GenerateCounts:
    backend = EndpointBackend(endpoint(url, **changes), "fake", Decoding(32), deadline_s=2)
    options = GenerateOptions((load_tasks()["pubmedqa"],), Decoding(32), None, None, {"pubmedqa": questions}, 4)
    return asyncio.run(generate(RunFolder(out), backend, options))


def have_judged(out: Path, url: str, failed_only: bool = False, **changes: Any) -> JudgeCounts:
    options = JudgeOptions("fake-judge", endpoint(url), **({"deadline_s": 2} | changes))
    return asyncio.run(judge(RunFolder(out), [options], rubric="verdict", failed_only=failed_only))


def rows(out: Path, name: str = "generations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines() if line.endswith("}")]


def test_all_goes_well_and_a_second_call_asks_nothing(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: "A"
    assert ask(tmp_path / "run", questions, fake_server.url).answered == 12
    counts = ask(tmp_path / "run", questions, fake_server.url)
    assert (counts.answered, counts.already) == (0, 12)
    assert len(fake_server.bodies) == 12
    result = score(RunFolder(tmp_path / "run"))
    task = result["tasks"]["pubmedqa"]
    assert task["estimate"]["mean"] == 1.0
    assert task["estimate"]["clusters"] == 6  # twelve questions on six abstracts
    assert task["letters"]["accuracy_by_letter_alone"] == 1.0


@pytest.mark.parametrize(
    ("name", "reply", "kind"),
    [
        ("a prompt over the context window", 400, "context_overflow"),
        ("an endless 429", 429, "busy"),
        ("a server error", 500, "server"),
        ("a hang", None, "timeout"),
    ],
)
def test_one_item_that_always_fails_is_unscored_and_the_rest_is_done(
    tmp_path, questions, fake_server, name, reply, kind
):
    fake_server.reply = lambda prompt, asked: reply if "treatment 7" in prompt else "A"
    counts = ask(tmp_path / "run", questions, fake_server.url)
    assert (counts.answered, counts.failed) == (11, 1), name
    with pytest.raises(EvaluationError, match=r"1 of 12 items are unscored \(no response: " + kind):
        score(RunFolder(tmp_path / "run"), budget=Budget(unscored=0.02))
    result = json.loads((tmp_path / "run" / "scores.json").read_text())
    task = result["tasks"]["pubmedqa"]
    assert task["unscored"] == {f"no response: {kind}": 1}
    assert (task["scored"], task["estimate"]["mean"]) == (11, 1.0)  # a failure is never a wrong answer
    assert task["bounds"] == [pytest.approx(11 / 12), 1.0]
    assert "no result" in (tmp_path / "run" / "scores.md").read_text()
    fake_server.reply = lambda prompt, asked: "A"
    assert ask(tmp_path / "run", questions, fake_server.url).answered == 1  # asked again, and only that one
    assert score(RunFolder(tmp_path / "run"))["unscored"] == 0


def test_only_what_was_last_asked_for_is_scored(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: "A"
    ask(tmp_path / "run", questions, fake_server.url)
    table = questions / "pqa_labeled" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(table).slice(0, 8), table)  # four rows leave the task
    assert ask(tmp_path / "run", questions, fake_server.url).already == 8
    assert score(RunFolder(tmp_path / "run"))["items"] == 8


def test_a_passing_429_is_retried_within_the_call(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: 429 if asked == 1 else "A"
    assert ask(tmp_path / "run", questions, fake_server.url).answered == 12
    assert set(fake_server.asked.values()) == {2}


def test_garbage_from_the_endpoint_is_unscored(tmp_path, questions, fake_server):
    fake_server.reply = lambda prompt, asked: {"not": "text"} if "treatment 3" in prompt else "A"  # type: ignore
    counts = ask(tmp_path / "run", questions, fake_server.url)
    assert (counts.answered, counts.failed) == (11, 1)
    assert [row["error"]["kind"] for row in rows(tmp_path / "run") if row["error"]] == ["malformed"]


def test_a_dead_endpoint_ends_the_stage_and_what_is_done_stays_done(tmp_path, questions, fake_server):
    asked = Counter()

    def answer(prompt: str, times: int) -> Any:
        asked[prompt] += 1
        return "A" if len(asked) <= 3 else 503

    fake_server.reply = answer
    with pytest.raises(EvaluationError, match="failures in a row"):
        ask(tmp_path / "run", questions, fake_server.url)
    done = sum(row["error"] is None for row in rows(tmp_path / "run"))
    assert done == 3
    with pytest.raises(EvaluationError, match="did not come to its end"):
        score(RunFolder(tmp_path / "run"))
    fake_server.reply = lambda prompt, times: "A"
    counts = ask(tmp_path / "run", questions, fake_server.url)
    assert (counts.already, counts.answered) == (3, 9)


def test_a_failed_judgement_is_unscored_and_judge_failed_only_asks_for_it_again(
    tmp_path, questions, fake_server, fake_judge
):
    fake_server.reply = lambda prompt, asked: "It surely helps."  # no option: a judge has to read it
    ask(tmp_path / "run", questions, fake_server.url)
    fake_judge.reply = lambda prompt, asked: "perhaps" if "treatment 5" in prompt else "NO"
    counts = have_judged(tmp_path / "run", fake_judge.url)
    assert (counts.wanted, counts.judged, counts.failed) == (12, 11, 1)
    with pytest.raises(EvaluationError, match="judge: unparsed: 1"):
        score(RunFolder(tmp_path / "run"))
    asked_before = len(fake_judge.bodies)
    fake_judge.reply = lambda prompt, asked: "YES"
    counts = have_judged(tmp_path / "run", fake_judge.url, failed_only=True)
    assert (counts.judged, len(fake_judge.bodies) - asked_before) == (1, 1)
    result = score(RunFolder(tmp_path / "run"))
    assert result["tasks"]["pubmedqa"]["estimate"]["mean"] == pytest.approx(1 / 12, abs=1e-6)
    assert len(fake_server.bodies) == 12  # judging again asked the model nothing


def test_votes_are_separate_conversations_and_the_majority_decides(tmp_path, questions, fake_server, fake_judge):
    fake_server.reply = lambda prompt, asked: "It surely helps."
    ask(tmp_path / "run", questions, fake_server.url)
    fake_judge.reply = lambda prompt, asked: "YES" if asked % 3 else "NO"  # two of three
    have_judged(tmp_path / "run", fake_judge.url, votes=3)
    assert len(fake_judge.bodies) == 36
    assert all(len(body["messages"]) == 1 for body in fake_judge.bodies)
    assert len({body["seed"] for body in fake_judge.bodies}) == 3
    assert score(RunFolder(tmp_path / "run"))["tasks"]["pubmedqa"]["estimate"]["mean"] == 1.0


def test_a_server_that_refuses_constraints_is_asked_without(tmp_path, questions, fake_server, fake_judge):
    fake_server.reply = lambda prompt, asked: "It surely helps."
    ask(tmp_path / "run", questions, fake_server.url)

    def answer(prompt: str, asked: int) -> Any:
        return 422 if "structured_outputs" in fake_judge.bodies[-1] else "YES"

    fake_judge.reply = answer
    assert have_judged(tmp_path / "run", fake_judge.url).judged == 12


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["generate", "judge"])
def test_kill_minus_nine_loses_and_repeats_nothing(tmp_path, questions, fake_server, fake_judge, stage):
    fake_server.reply = lambda prompt, asked: (time.sleep(0.05), "It surely helps.")[1]
    fake_judge.reply = lambda prompt, asked: (time.sleep(0.05), "NO")[1]
    out = tmp_path / "run"
    common = ["--out", str(out), "--in-flight", "1"]
    where = [
        "--model",
        "fake",
        "--model-url",
        fake_server.url,
        "--tasks",
        "pubmedqa",
        "--data",
        f"pubmedqa={questions}",
    ]
    commands = {
        "generate": [*MEDIX, "eval", "generate", *where, *common],
        "judge": [*MEDIX, "eval", "judge", "--judge-url", fake_judge.url, "--judge-model", "j", *common],
    }
    commands["judge"] += ["--rubric", "verdict"]
    if stage == "judge":
        fake_server.reply = lambda prompt, asked: "It surely helps."
        ask(out, questions, fake_server.url)
    watched = out / ("generations.jsonl" if stage == "generate" else "judgements.jsonl")
    child = subprocess.Popen(commands[stage], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while (not watched.exists() or watched.read_bytes().count(b"\n") < 3) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with watched.open("ab") as file:
        file.write(b'{"key": "half a ro')  # what a killed writer may leave
    kept = watched.read_bytes().count(b"\n")
    assert 3 <= kept < 12
    finished = subprocess.run(commands[stage], check=True, capture_output=True, text=True)
    assert f"{12 - kept} {'answered' if stage == 'generate' else 'judged'}" in finished.stdout
    keys = [row["key"] for row in rows(out, watched.name)]
    assert len(keys) == len(set(keys)) == 12


def test_a_full_disk_ends_the_stage_with_a_reason_and_whole_rows(tmp_path, questions, fake_server):
    """On a tmpfs of 64 KiB where one can be mounted, else under a limit of the file size."""
    out = tmp_path / "small" / "run"
    out.parent.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out.parent)], capture_output=True
    ).returncode
    if not mounted:
        pytest.skip("no permission to mount a tmpfs")
    try:
        fake_server.reply = lambda prompt, asked: "long " * 3000
        with pytest.raises(MedixError, match="No space left"):
            ask(out, questions, fake_server.url)
        written = rows(out)
        assert 1 <= len(written) < 12
        assert (out / "generations.jsonl").read_bytes().endswith(b"\n")
        subprocess.run(["mount", "-o", "remount,size=4m", str(out.parent)], check=True)
        assert ask(out, questions, fake_server.url).answered == 12 - len(written)
    finally:
        subprocess.run(["umount", str(out.parent)], check=True)


def test_two_writers_of_one_folder_are_refused(tmp_path, questions, fake_server):
    folder = RunFolder(tmp_path / "run")
    with folder.generations.writer(), pytest.raises(ConfigError, match="Another process is writing"):
        ask(tmp_path / "run", questions, fake_server.url)
