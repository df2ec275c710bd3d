"""The probe of judge and embedder, against the real rule-judge over HTTP."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from examples.rule_judge.server import start_rule_judge
from medix_verl.preflight.scorers import FIXED_VERDICTS, check_scorers
from reward_fns.scorers.types import VerdictParse

JUDGE = frozenset({"judge"})


@pytest.fixture(scope="module")
def judge_url() -> Iterator[str]:
    with start_rule_judge() as url:
        yield url


def closed_port() -> str:
    """A URL at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def settings(url: str, model: str = "rule-judge") -> dict[str, Any]:
    return {"judge": {"urls": [url], "model": model}, "embedder": {"kind": "none", "model": ""}}


@pytest.mark.parametrize(
    ("prompt", "verdicts", "wrong"),
    [
        ("judge.txt", ["strict"], ""),
        ("judge_paper.txt", ["substring"], ""),
        ("judge.txt", ["substring"], ""),  # the released reading under a prompt that has more than it needs
        ("judge_paper.txt", ["strict"], "has no delimited fields"),  # the run would end at its first response
        ("judge_paper.txt", ["strict", "substring"], "has no delimited fields"),
    ],
)
def test_the_fixed_verdicts_are_asked_as_the_run_will_ask(
    prompt: str, verdicts: list[VerdictParse], wrong: str, judge_url: str
) -> None:
    scorer = settings(judge_url)
    (check,) = check_scorers({**scorer, "judge": {**scorer["judge"], "prompt": prompt}}, JUDGE, verdicts)
    number = len(FIXED_VERDICTS)
    assert check.status == ("fail" if wrong else "pass")
    assert (wrong or f"{number} of {number} fixed verdicts right at {judge_url}") in check.found


def test_a_scorer_that_nothing_needs_is_not_asked() -> None:
    assert check_scorers(settings(closed_port()), frozenset()) == []


def test_an_unreachable_judge_is_told_within_seconds() -> None:
    url, start = closed_port(), time.monotonic()
    (check,) = check_scorers(settings(url), JUDGE)
    assert time.monotonic() - start < 15
    assert check.status == "fail"
    assert url in check.found
    assert "python -m examples.rule_judge" in check.remedy


def test_a_model_that_the_endpoint_does_not_have_is_told(judge_url: str) -> None:
    (check,) = check_scorers(settings(judge_url, "some-llm"), JUDGE)
    assert check.status == "fail"
    assert "some-llm" in check.found


def test_no_url_is_told() -> None:
    (check,) = check_scorers({**settings(""), "judge": {"urls": [], "model": "m"}}, JUDGE)
    assert check.status == "fail"


def test_a_judge_that_gets_one_wrong_is_refused(judge_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (*FIXED_VERDICTS, ("Which organ is shown?", "liver", "spleen", True))
    monkeypatch.setattr("medix_verl.preflight.scorers.FIXED_VERDICTS", wrong)
    (check,) = check_scorers(settings(judge_url), JUDGE)
    assert (check.status, check.found) == ("fail", "wrong on 'spleen' for 'liver'")
