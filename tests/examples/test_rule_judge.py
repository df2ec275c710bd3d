"""The embedded judge: its rules on the table of clinical pairs, and its server as the real client sees it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.rule_judge.server import start_rule_judge
from medix.errors import ConfigError, ScorerError
from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.clinical_rules.rule_judge import RuleJudge, load_synonyms
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest

PAIRS = [*csv.DictReader((Path(__file__).parent.parent / "reward_fns" / "clinical_pairs.csv").open())]


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        ("lipoma", "hemangioma"), ("carcinoma", "sarcoma"), ("pneumonia", "pneumonia or tuberculosis"),
        ("pneumonia", "pneumonia pneumothorax"), ("pneumonia", "YES"), ("pneumonia", ":"), ("B", "C"),
        ("right lung mass, left effusion", "left lung mass, right effusion"), ("3", "4"), ("yes", "maybe"),
        ("left and right effusion", "left effusion"), ("5 cm", "5"), ("½ tablet", "tablet"),
        ("2+", "3+"), ("10^999", "1"), ("+", "+"), ("ER+ PR-", "ER- PR+"), ("α-thalassemia", "β-thalassemia"),
        *((pair["reference"], pair["candidate"]) for pair in PAIRS if pair["truth"] == "different"),
    ],
)  # fmt: skip
def test_other_answers_are_not_the_same(reference: str, candidate: str) -> None:
    assert not RuleJudge().same(reference, candidate)
    assert not RuleJudge().same(candidate, reference)


@pytest.mark.parametrize(("one", "other"), [("B", "b"), ("3", "three"), ("2:1", "2:1"), ("yes", "Yes")])
def test_short_answers_are_content(one: str, other: str) -> None:
    assert RuleJudge().same(one, other)


def test_aliases_and_further_synonyms_count(tmp_path: Path) -> None:
    path = tmp_path / "more.json"
    path.write_text('[["zoonosis", "animal disease"]]')
    assert RuleJudge().same("reference", "other wording", ["Other wording"])
    assert not RuleJudge().same("zoonosis", "animal disease")
    assert RuleJudge(load_synonyms(path)).same("zoonosis", "animal disease")
    path.write_text('{"zoonosis": 1}')
    with pytest.raises(ConfigError):
        load_synonyms(path)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=80), st.text(max_size=80))
def test_rules_never_raise_and_a_text_never_contradicts_itself(left: str, right: str) -> None:
    RuleJudge().same(left, right)
    assert find_contradiction(left, left) is None


async def test_the_server_speaks_the_protocol_of_the_real_client() -> None:
    asked = [
        JudgeRequest("myocardial infarction", "heart attack", "Diagnosis?"),
        JudgeRequest("left effusion", "right effusion", "Side?"),
        JudgeRequest("x", "the y thing", "?", aliases=("the y thing", "z")),
    ]
    with start_rule_judge() as url:
        service, wrong = (ScorerService({"judge": {"urls": [url], "model": name}}) for name in ("rule-judge", "gpt"))
        assert [(await service.judge(request)).correct for request in asked] == [True, False, True]
        with pytest.raises(ScorerError, match="gpt"):
            await wrong.judge(asked[0])
        await service.aclose()
        await wrong.aclose()


@pytest.mark.parametrize("waited_for", [True, False], ids=["parent is gone", "parent has ended, nobody waited for it"])
def test_the_command_prints_its_address_and_ends_with_its_parent(waited_for: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    command = [sys.executable, "-m", "examples.rule_judge", "--parent-pid", str(parent.pid)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert b"rule-judge" in urllib.request.urlopen(f"{url}/v1/models", timeout=5).read()
        parent.kill()
        if waited_for:
            parent.wait()
        start = time.monotonic()
        assert server.wait(5) == 0
        assert time.monotonic() - start < 3
    finally:
        parent.kill()
        server.kill()
