"""Each monitor speaks up for what it watches, planted here, and is silent on a sound run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medix_verl.report.charts import Chart
from medix_verl.report.monitors import find_jumps, monitors
from medix_verl.report.rollouts import Group, Response
from medix_verl.report.run_folder import Metrics, RunFolder, Series

STEPS = range(1, 11)


def response(
    session: int = 0, answer: str | None = "lungs", think: int = 40, verdict: bool = True, **scores: float
) -> Response:
    values = {"score": 1.0, "llm_accuracy": 1.0, "embed_accuracy": 1.0, "embed_similarity": 0.9, **scores}
    right = values["llm_accuracy"] >= 0.5
    return Response(session + 1, session, "text", 0, values, answer, think, (), verdict, "YES", 1, {}, right)


def group(step: int, *responses: Response, split: str = "train", sample: str = "s1") -> Group:
    return Group(f"u{step}", step, split, sample, "what?", "the lungs", "CT_SCAN", list(responses))


def run_of(groups: list[Group], rows: list[dict[str, object]] | None = None) -> RunFolder:
    return RunFolder(Path("synthetic"), Metrics(rows or []), groups)


def found(run: RunFolder) -> dict[str, Chart]:
    return {chart.id: chart for chart in monitors(run)}


PLANTED: dict[str, Callable[[int], Group]] = {
    "contradicted": lambda step: group(step, response(0, "no lungs"), response(1)),
    "near_refused": lambda step: group(step, response(0, verdict=False, llm_accuracy=0.0), response(1)),
    "judge_far": lambda step: group(step, response(0, embed_similarity=0.1), response(1)),
    "short_paid": lambda step: group(step, response(0, "."), response(1)),
    "repeated": lambda step: group(step, *(response(i, "same", llm_accuracy=0.0) for i in range(6))),
    "thinking": lambda step: group(step, response(0, think=100 - 9 * step), response(1, think=100 - 9 * step)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_monitor_fires_on_what_it_watches_and_is_silent_on_a_sound_run(name: str) -> None:
    assert found(run_of([PLANTED[name](step) for step in STEPS]))[name].level == "alert"
    assert found(run_of([group(step, response(0), response(1, "a lung")) for step in STEPS]))[name].level == "ok"


def test_right_answers_that_repeat_each_other_are_no_worry() -> None:
    """A policy that has become right says the same right thing six times."""
    right = [group(step, *(response(i, "same") for i in range(6))) for step in STEPS]
    assert found(run_of(right))["repeated"].level == "ok"


def test_the_sentence_gives_the_count() -> None:
    chart = found(run_of([PLANTED["judge_far"](step) for step in STEPS]))["judge_far"]
    sentence = chart.sentence
    assert chart.link == "#rollouts&only=judge_far"
    assert sentence.startswith("10 of 20 responses")  # one of two at each of ten steps
    assert "Most at step 1: 50%" in sentence


def test_a_component_that_jumps_is_named_with_its_step_and_one_that_rises_all_the_way_is_not() -> None:
    values = [0.1] * 8 + [0.9] * 8
    rows: list[dict[str, object]] = [{"step": i, "data": {"reward/format/mean": v}} for i, v in enumerate(values, 1)]
    chart = found(run_of([], rows))["jumps"]
    assert chart.level == "watch"
    assert "format rose by 0.80 at step 9" in chart.sentence
    assert find_jumps(Series(list(range(10)), [i / 9 for i in range(10)])) == []


def test_a_canary_lost_between_validations_is_named() -> None:
    checks = [group(0, response(), split="val", sample="a"), group(10, response(score=0.1), split="val", sample="a")]
    chart = found(run_of([*checks, group(10, response(), split="val", sample="b")]))["canaries"]
    assert chart.level == "watch"
    assert "1 that started right score below 0.5 now (a)" in chart.sentence


def test_canaries_of_ones_own_are_taken_before_others() -> None:
    groups = [group(0, response(), split="val", sample=name) for name in ("x", "canary-empty")]
    assert found(run_of(groups))["canaries"].sentence.startswith("1 own canaries")


def test_without_anything_logged_every_monitor_says_so() -> None:
    assert {chart.sentence for chart in monitors(run_of([]))} == {"Nothing logged to go by yet."}


@pytest.mark.parametrize(
    ("answer", "scores", "flags"),
    [
        ("lungs", {}, set()),
        ("..", {}, {"short_paid"}),
        ("ok", {}, {"short_paid"}),
        ("ok", {"llm_accuracy": 0.0, "embed_accuracy": 0.0}, set()),  # not paid
        (None, {}, set()),  # no answer block at all is a matter of the form
        ("lungs", {"embed_similarity": 0.49}, {"judge_far"}),
        ("lungs", {"embed_similarity": 0.49, "llm_accuracy": 0.0}, set()),
        ("lungs", {"judge_embedder_disagree": 1.0}, {"disagree"}),
        ("no lungs", {}, {"contradicted"}),
        ("no lungs", {"llm_accuracy": 0.0, "embed_accuracy": 0.0}, set()),  # contradicts, and is not paid
    ],
)
def test_flags_of_a_response(answer: str | None, scores: dict[str, float], flags: set[str]) -> None:
    item = group(1, response(answer=answer, **scores))
    assert item.flags(item.responses[0]) == flags


def test_far_needs_a_cosine_and_short_needs_a_longer_reference() -> None:
    item = group(1, response(answer="B"))
    item.reference = "B"
    del item.responses[0].scores["embed_similarity"]
    assert item.flags(item.responses[0]) == set()
