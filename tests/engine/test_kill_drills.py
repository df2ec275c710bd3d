"""kill -9 in the middle of a step: of veRL's driver, of `medix train` itself, of vLLM, and of the reward worker.

One run is killed four times and started again by the same command each time; another is left in peace. Both must have
seen the same prompts at the same steps, and their metrics must tell of each step. A checkpoint is saved every second
step, so that steps are done again; the model that a resume loads must answer, greedily, as the one that was saved.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import fmean

import psutil
import pytest

from examples.rule_judge.server import start_rule_judge
from medix.jsonl import JsonLines
from medix_verl.training.watch import PEARSON
from tests.engine.drills import END_LIMIT_S, PROMPTS, RESPONSES, START_LIMIT_S, STEPS, Drill, model_and_data

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

SAVE_EVERY = 2
EXTRA = (f"trainer.save_freq={SAVE_EVERY}", f"trainer.test_freq={SAVE_EVERY}", "trainer.val_before_train=true")
JUDGE_LATENCY_S = 0.7
"""Long enough that a step is caught between its first scored response and its last."""


@dataclass(frozen=True)
class Kill:
    """What is killed during step `step`, found among the run's processes by its command line."""

    name: str
    victim: str
    step: int
    says: str
    """What `medix train` tells its user; empty where it was itself the victim."""
    while_scored: bool = True
    """Between the step's first scored response and its last; else as the step begins to generate."""


KILLS = (
    Kill("driver", "verl.trainer.main_ppo", 2, "SIGKILL"),
    Kill("supervisor", "medix train", 3, ""),
    Kill("vllm", "VLLM::EngineCore", 4, "EngineDead", while_scored=False),
    Kill("reward worker", "ray::RewardLoopWorker", 5, "RewardLoopWorker"),
)


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    seconds_to_end: float
    said: str
    left: list[str]
    saved_step: int


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Drill, Drill]]:
    """Two runs of the same model on the same data, before a slow judge: one for peace, one for the kills."""
    folder = tmp_path_factory.mktemp("drill")
    ground = model_and_data(folder)
    with start_rule_judge(latency_s=JUDGE_LATENCY_S) as url:
        peace, kills = (
            Drill(folder / name, ground / "tiny-vlm", ground / "data", url, EXTRA) for name in ("in_peace", "killed")
        )
        yield peace, kills


@pytest.fixture(scope="module")
def in_peace(drills: tuple[Drill, Drill]) -> Drill:
    drill = drills[0]
    assert drill.start().wait(START_LIMIT_S) == 0, drill.said()
    return drill


@pytest.fixture(scope="module")
def killed(drills: tuple[Drill, Drill], in_peace: Drill) -> tuple[Drill, dict[str, Outcome]]:
    """The run that is killed four times, then let go to its end."""
    drill = drills[1]
    outcomes = {kill.name: carry_out(kill, drill) for kill in KILLS}
    assert drill.start().wait(START_LIMIT_S) == 0, drill.said()
    return drill, outcomes


def carry_out(kill: Kill, drill: Drill) -> Outcome:
    process = drill.start()

    def in_the_middle() -> bool:
        if not kill.while_scored:
            return max(drill.metrics(), default=0) == kill.step - 1
        return 0 < sum(row["step"] == kill.step for row in drill.trained()) < PROMPTS * RESPONSES

    drill.wait_for(in_the_middle, process, START_LIMIT_S)
    victim = process.pid if kill.name == "supervisor" else find(drill, kill.victim)
    psutil.Process(victim).kill()
    start = time.monotonic()
    try:
        exit_code = process.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(60)
        exit_code = 0  # it went on, or hung
    while drill.processes() and time.monotonic() - start < END_LIMIT_S:
        time.sleep(0.1)
    seconds = time.monotonic() - start
    left = [f"{left.pid} {left.name()}" for left in drill.processes()]
    for leftover in drill.processes():
        leftover.kill()
    outcome = Outcome(exit_code, seconds, drill.said(), left, drill.saved_step())
    with drill.run.with_suffix(".outcomes.jsonl").open("a") as file:  # to look at when the drill is cut short
        file.write(json.dumps({"kill": kill.name, **asdict(outcome)}) + "\n")
    return outcome


def find(drill: Drill, name: str) -> int:
    for process in drill.processes():
        if name in " ".join(process.cmdline()):
            return process.pid
    raise AssertionError(f"no {name} among {[' '.join(p.cmdline())[:60] for p in drill.processes()]}")


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.name)
class TestEachKill:
    def test_the_run_ends_soon_and_leaves_no_process(
        self, kill: Kill, killed: tuple[Drill, dict[str, Outcome]]
    ) -> None:
        outcome = killed[1][kill.name]
        print(f"{kill.name}: exit code {outcome.exit_code}, over {outcome.seconds_to_end:.1f} s after the kill")
        assert outcome.exit_code not in (0, None)
        assert outcome.left == []
        assert outcome.seconds_to_end < 60

    def test_its_user_is_told_why(self, kill: Kill, killed: tuple[Drill, dict[str, Outcome]]) -> None:
        assert kill.says in killed[1][kill.name].said

    def test_the_steps_before_are_saved(self, kill: Kill, killed: tuple[Drill, dict[str, Outcome]]) -> None:
        assert killed[1][kill.name].saved_step == (kill.step - 1) // SAVE_EVERY * SAVE_EVERY


def test_the_same_prompts_were_asked_at_the_same_steps(in_peace: Drill, killed: tuple[Drill, object]) -> None:
    expected = in_peace.samples_by_step()
    assert sorted(expected) == list(range(1, STEPS + 1))
    assert all(len(samples) == PROMPTS for samples in expected.values())
    assert len({sample for samples in expected.values() for sample in samples}) > PROMPTS  # steps differ
    assert killed[0].samples_by_step() == expected


def test_metrics_continue_over_the_kills(in_peace: Drill, killed: tuple[Drill, object]) -> None:
    drill = killed[0]
    # A step that was cut short was not logged. Steps 1 and 3 had ended unsaved when step 2 and 4 were killed.
    assert drill.logged_steps() == [1, 1, 2, 3, 3, 4, 5]
    ours, theirs = drill.metrics(), in_peace.metrics()
    assert ours.keys() == theirs.keys()
    for step in ours:
        # The schedule went on where it was, and not from its start.
        assert ours[step]["actor/lr"] == pytest.approx(theirs[step]["actor/lr"])
        assert ours[step][PEARSON] >= 0.999
    assert len({ours[step]["actor/lr"] for step in ours}) == STEPS


def test_rewards_are_comparable(in_peace: Drill, killed: tuple[Drill, object]) -> None:
    """Sampling is not bit for bit the same after a restart, so the means over all steps are held against each other."""
    means = [fmean(step["reward/score/mean"] for step in drill.metrics().values()) for drill in (in_peace, killed[0])]
    print(f"mean reward in peace {means[0]:.3f}, killed {means[1]:.3f}")
    assert abs(means[0] - means[1]) < 0.25


def test_a_resume_answers_as_the_saved_model_did(killed: tuple[Drill, object]) -> None:
    """Greedy validations at the start of each attempt against those that the attempt before logged at that step."""
    answers: dict[tuple[int, str], list[str]] = defaultdict(list)
    for _, row in JsonLines(killed[0].run / "rollouts" / "scored.jsonl"):
        if row["split"] != "train":
            answers[row["step"], row["sample_id"]].append(row["response"])
    again = {key: given for key, given in answers.items() if len(given) > 1}
    assert {step for step, _ in again} == {0, 2, 4}
    assert {key: given for key, given in again.items() if len(set(given)) > 1} == {}
    first, last = ({sample: given[0] for (at, sample), given in again.items() if at == step} for step in (0, 4))
    assert first != last  # it did learn something, so that another checkpoint's answers would have been seen
