"""Judge prompts that data can not forge, and replies that are read strictly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.judging.rubrics import Case, combine, prompt_text, read_vote, version
from evaluation.run_folder import Vote

GOOD = {"semantic": 5, "reasoning": None, "context": 3, "why": "same finding", "verdict": "YES"}


def reply(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


@pytest.mark.parametrize(
    ("name", "text", "score"),
    [
        ("yes", reply(), 1.0),
        ("no", reply(verdict="NO"), 0.0),
        ("fenced", f"```json\n{reply()}\n```", 1.0),
        ("after reasoning", f"<think>it is {{}}</think>\n{reply()}", 1.0),
        ("prose around it", f"Here you are: {reply()}", None),
        ("verdict in other case", reply(verdict="yes"), None),
        ("grade as text", reply(semantic="5"), None),
        ("grade out of range", reply(semantic=6), None),
        ("grade true", reply(semantic=True), None),
        ("unknown field", reply(verdict_2="NO"), None),
        ("no verdict", json.dumps({"semantic": 5}), None),
        ("list", "[]", None),
        ("empty", "", None),
        ("cut short", reply()[:-3], None),
    ],
)
def test_rubric_replies(name, text, score):
    vote = read_vote("rubric", text)
    assert (None if vote is None else vote.score) == score, name


@pytest.mark.parametrize(
    ("name", "score", "expected"),
    [("top", 5, 1.0), ("middle", 3, 0.6), ("six", 6, None), ("none", None, None), ("text", "4", None)],
)
def test_report_replies(name, score, expected):
    data = {key: value for key, value in GOOD.items() if key != "verdict"} | {"score": score}
    vote = read_vote("report", json.dumps(data))
    assert (None if vote is None else vote.score) == expected, name


@given(st.text(max_size=300))
def test_any_reply_is_read_without_error(text):
    for rubric in ("verdict", "rubric", "report"):
        vote = read_vote(rubric, text)
        assert vote is None or 0 <= vote.score <= 1


@given(st.text(alphabet=st.sampled_from("[]/{} \n\u200bCANDIDTEREFQUSOPG.x【】question"), max_size=80))
def test_data_can_not_leave_its_field(text):
    shown = prompt_text("rubric", Case(text, text, text, text, text, (text,)))
    plain = prompt_text("rubric", Case("x", "x", "x", "x", "x", ("x",)))
    for delimiter in ("[[", "]]", "[[/CANDIDATE]]", "[[REFERENCE]]"):
        assert shown.count(delimiter) == plain.count(delimiter)


def test_a_placeholder_in_data_is_not_filled():
    shown = prompt_text("report", Case("{reference}", "secret", "c"))
    assert shown.count("secret") == 1


def test_every_rubric_has_its_version():
    assert len({version(rubric) for rubric in ("verdict", "rubric", "report")}) == 3


POINTS = (("right", 7.0), ("kind", 3.0), ("frightens", -5.0))


@pytest.mark.parametrize(
    ("name", "rubric", "scores", "expected"),
    [
        ("all points", "points", [1, 1, 0], 1.0),
        ("some points", "points", [1, 0, 0], 0.7),
        ("points taken away", "points", [1, 0, 1], 0.2),  # (7 - 5) / 10
        ("below nothing", "points", [0, 0, 1], 0.0),
        ("a criterion without a vote", "points", [1, None, 0], None),
        ("majority", "rubric", [1, 1, 0], 1.0),
        ("no majority of those asked", "rubric", [1, None, None], None),
        ("a tie", "rubric", [1, 0, None], None),
        ("mean of a report", "report", [0.2, 0.4, None], 0.3),
    ],
)
def test_votes_are_combined(name, rubric, scores, expected):
    votes = [None if score is None else Vote(score, "") for score in scores]
    assert combine(rubric, votes, POINTS) == (None if expected is None else pytest.approx(expected)), name


@pytest.mark.parametrize(
    ("rubric", "text", "score"),
    [
        ("points", '{"why": "", "met": true}', 1.0),
        ("points", '{"why": "", "met": "yes"}', None),
        ("released", '{"score": 1}', 1.0),
        ("released", '```json\n{"score": 0, "more": "x"}\n```', 0.0),
        ("released", '{"score": 5}', None),
        ("released", '{"score": "1"}', None),
        ("released_report", '{"score": 4}', 0.8),
        ("released_report", '{"score": -3}', None),
    ],
)
def test_criteria_and_other_wordings(rubric, text, score):
    vote = read_vote(rubric, text)
    assert (None if vote is None else vote.score) == score
