"""What goes wrong in a long evaluation: each drill has to end, to say what is unscored, and to lose nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evaluation.run_folder import RunFolder
from evaluation.score import score
from medix.errors import ConfigError, EvaluationError, MedixError
from tests.evaluation.conftest import answered, ask, have_judged

MEDIX = [sys.executable, "-c", "from medix_verl.cli import main; main()"]
HELPS = "It surely helps."
"""No option: a judge has to read it."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def rows(out: Path, name: str = "generations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines() if line.endswith("}")]


def result(out: Path) -> dict[str, Any]:
    return score(RunFolder(out))["tasks"]["pubmedqa"]  # type: ignore[no-any-return]


def test_all_goes_well_and_a_second_call_asks_nothing(out, questions, fake_server):
    answered(out, questions, fake_server, "A")
    counts = ask(out, questions, fake_server.url)
    assert (counts.answered, counts.already, len(fake_server.bodies)) == (0, 12, 12)
    task = result(out)
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
        ("garbage", {"not": "text"}, "malformed"),
    ],
)
def test_one_item_that_always_fails_is_unscored_and_the_rest_is_done(out, questions, fake_server, name, reply, kind):
    answered(out, questions, fake_server, lambda prompt, asked: reply if "treatment 7" in prompt else "A")
    with pytest.raises(EvaluationError, match=r"1 of 12 items are unscored \(no response: " + kind):
        score(RunFolder(out))
    task = json.loads((out / "scores.json").read_text())["tasks"]["pubmedqa"]
    assert task["unscored"] == {f"no response: {kind}": 1}, name
    assert (task["scored"], task["estimate"]["mean"]) == (11, 1.0)  # a failure is never a wrong answer
    assert task["bounds"] == [pytest.approx(11 / 12), 1.0]
    assert "no result" in (out / "scores.md").read_text()
    fake_server.reply = lambda prompt, asked: "A"
    assert ask(out, questions, fake_server.url).answered == 1  # asked again, and only that one
    assert result(out)["unscored"] == {}


def test_only_what_was_last_asked_for_is_scored(out, questions, fake_server):
    answered(out, questions, fake_server, "A")
    table = questions / "pqa_labeled" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(table).slice(0, 8), table)  # four rows leave the task
    assert ask(out, questions, fake_server.url).already == 8
    assert result(out)["items"] == 8


def test_a_passing_429_is_retried_within_the_call(out, questions, fake_server):
    answered(out, questions, fake_server, lambda prompt, asked: 429 if asked == 1 else "A")
    assert set(fake_server.asked.values()) == {2}


def test_a_dead_endpoint_ends_the_stage_and_what_is_done_stays_done(out, questions, fake_server):
    with pytest.raises(EvaluationError, match="failures in a row"):
        answered(out, questions, fake_server, lambda prompt, times: "A" if len(fake_server.asked) <= 3 else 503)
    assert sum(row["error"] is None for row in rows(out)) == 3
    with pytest.raises(EvaluationError, match="did not come to its end"):
        result(out)
    fake_server.reply = lambda prompt, times: "A"
    counts = ask(out, questions, fake_server.url)
    assert (counts.already, counts.answered) == (3, 9)


def test_a_failed_judgement_is_unscored_and_judge_failed_only_asks_for_it_again(
    out, questions, fake_server, fake_judge
):
    answered(out, questions, fake_server, HELPS)
    fake_judge.reply = lambda prompt, asked: "perhaps" if "treatment 5" in prompt else "NO"
    counts = have_judged(out, fake_judge.url)
    assert (counts.wanted, counts.judged, counts.failed) == (12, 11, 1)
    with pytest.raises(EvaluationError, match="judge: unparsed: 1"):
        result(out)
    asked_before = len(fake_judge.bodies)
    fake_judge.reply = lambda prompt, asked: "YES"
    counts = have_judged(out, fake_judge.url, failed_only=True)
    assert (counts.judged, len(fake_judge.bodies) - asked_before) == (1, 1)
    assert result(out)["estimate"]["mean"] == pytest.approx(1 / 12, abs=1e-6)
    assert len(fake_server.bodies) == 12  # judging again asked the model nothing


def test_votes_are_separate_conversations_and_the_majority_decides(out, questions, fake_server, fake_judge):
    answered(out, questions, fake_server, HELPS)
    fake_judge.reply = lambda prompt, asked: "YES" if asked % 3 else "NO"  # two of three
    have_judged(out, fake_judge.url, votes=3)
    assert len(fake_judge.bodies) == 36
    assert all(len(body["messages"]) == 1 for body in fake_judge.bodies)
    assert len({body["seed"] for body in fake_judge.bodies}) == 3
    assert result(out)["estimate"]["mean"] == 1.0


def test_a_server_that_refuses_constraints_is_asked_without(out, questions, fake_server, fake_judge):
    answered(out, questions, fake_server, HELPS)
    fake_judge.reply = lambda prompt, asked: 422 if "structured_outputs" in fake_judge.bodies[-1] else "YES"
    assert have_judged(out, fake_judge.url).judged == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "options", "written"),
    [
        ("generate", ["--model", "fake", "--tasks", "pubmedqa"], "generations.jsonl"),
        ("judge", ["--judge-model", "j", "--rubric", "verdict"], "judgements.jsonl"),
    ],
)
def test_kill_minus_nine_loses_and_repeats_nothing(out, questions, fake_server, fake_judge, stage, options, written):
    if stage == "generate":
        options = [*options, "--model-url", fake_server.url, "--data", f"pubmedqa={questions}"]
    else:
        answered(out, questions, fake_server, HELPS)
        options = [*options, "--judge-url", fake_judge.url]
    fake_server.reply = lambda prompt, asked: (time.sleep(0.05), HELPS)[1]
    fake_judge.reply = lambda prompt, asked: (time.sleep(0.05), "NO")[1]
    command = [*MEDIX, "eval", stage, *options, "--out", str(out), "--in-flight", "1"]
    watched = out / written
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while (not watched.exists() or watched.read_bytes().count(b"\n") < 3) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with watched.open("ab") as file:
        file.write(b'{"key": "half a ro')  # what a killed writer may leave
    kept = watched.read_bytes().count(b"\n")
    assert 3 <= kept < 12
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"{12 - kept} {'answered' if stage == 'generate' else 'judged'}" in finished.stdout
    keys = [row["key"] for row in rows(out, watched.name)]
    assert len(keys) == len(set(keys)) == 12


def is_whole(path: Path) -> bool:
    text = path.read_text()
    return text.rstrip().endswith("</html>") if path.suffix == ".html" else bool(json.loads(text)["tasks"]["pubmedqa"])


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name"), [("score", "scores.json"), ("report", "evaluation.html")])
def test_a_killed_stage_leaves_whole_results(out, questions, fake_server, fake_judge, stage, name):
    answered(out, questions, fake_server, HELPS)
    have_judged(out, fake_judge.url)
    kept = {rows: (out / rows).read_bytes() for rows in ("generations.jsonl", "judgements.jsonl")}
    result(out)
    command = [*MEDIX, "eval", stage, "--out", str(out)]
    for delay_s in (0.3, 0.6, 0.9, 1.2, 1.5):  # from before the imports are done to about the end of the command
        (out / name).unlink(missing_ok=True)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_s)
        child.kill()
        child.wait()
        assert not (out / name).exists() or is_whole(out / name)
    if stage == "report":
        result(out)
    subprocess.run(command, check=True, capture_output=True)
    assert is_whole(out / name)
    assert kept == {rows: (out / rows).read_bytes() for rows in kept}


def test_a_full_disk_ends_the_stage_with_a_reason_and_whole_rows(out, questions, fake_server):
    """On a tmpfs of 64 KiB where one can be mounted."""
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out)], capture_output=True).returncode:
        pytest.skip("no permission to mount a tmpfs")
    try:
        with pytest.raises(MedixError, match="No space left"):
            answered(out, questions, fake_server, "long " * 3000)
        written = rows(out)
        assert 1 <= len(written) < 12
        assert (out / "generations.jsonl").read_bytes().endswith(b"\n")
        subprocess.run(["mount", "-o", "remount,size=4m", str(out)], check=True)
        assert ask(out, questions, fake_server.url).answered == 12 - len(written)
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_two_writers_of_one_folder_are_refused(out, questions, fake_server):
    with RunFolder(out).generations.writer(), pytest.raises(ConfigError, match="Another process is writing"):
        ask(out, questions, fake_server.url)
