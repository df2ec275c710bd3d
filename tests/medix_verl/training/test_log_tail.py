"""Why a run ended, found among what Ray, vLLM and veRL wrote around it; the lines are from real logs, shortened."""

from __future__ import annotations

import pytest

from medix_verl.training.log_tail import SHOWN_LINES, telling_lines

CYAN, END = "\x1b[36m", "\x1b[0m"


def of(speaker: str, *lines: str) -> list[str]:
    return [f"{CYAN}({speaker} pid=18747){END} {line}" for line in lines]


def test_a_dead_actor_is_named_once_however_often_it_was_missed() -> None:
    died = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task."
    block = [
        *of("AgentLoopWorkerTQ", died, "\tclass_name: RewardLoopWorker", "\tactor_id: 77ab"),
        *of("AgentLoopWorkerTQ", "ERROR:2026-11-22 20:52:09,750:Error in _run_prompt for uid=1d83"),
    ]
    last = "medix.errors.TrainingGuardError: expected every response of a batch; found 3 groups"
    assert telling_lines([*block * 12, "Error executing job with overrides: ['a=b']", last]) == [
        f"{died} It was RewardLoopWorker",
        last,
    ]


def test_what_two_engines_said_stands_in_the_order_of_its_last_saying() -> None:
    first, second = "vllm.EngineDeadError: EngineCore", "ValueError: x"
    assert telling_lines([first, second, first]) == [second, first]


@pytest.mark.parametrize(
    "noise",
    [
        'UserWarning: veomni engine is not available: ModuleNotFoundError("No module")',
        "Traceback (most recent call last): Error",
        "2026-11-22 - WARNING - an Error that was mended",
    ],
)
def test_noise_is_not_taken_for_a_reason(noise: str) -> None:
    assert telling_lines([noise, "RuntimeError: real"]) == ["RuntimeError: real"]


def test_without_an_error_the_last_lines_are_shown() -> None:
    lines = [f"line {number}" for number in range(50)]
    assert telling_lines(lines) == lines[-SHOWN_LINES:]


def test_a_line_of_all_metrics_does_not_bury_the_reason() -> None:
    """veRL's console line of a step has thousands of characters."""
    assert telling_lines(["step:1 - " + "a" * 5000]) == ["step:1 - " + "a" * 291 + " ..."]
