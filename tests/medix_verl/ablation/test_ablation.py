"""Studies: what was paid against what was true, and a study's runs with a fake recipe in place of training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from medix.errors import ConfigError, DataError
from medix_verl.ablation import table
from medix_verl.ablation.page import most_paid
from medix_verl.ablation.study import load_study, runs_of, setup_steps
from medix_verl.ablation.truth import Finding, Known, is_true, read_findings, read_truth
from medix_verl.ablation.watched import Watched, as_markdown, watch
from medix_verl.cli import app
from medix_verl.report.rollouts import Group, Response
from medix_verl.report.run_folder import Metrics, RunFolder

ROOT = Path(__file__).resolve().parents[3]

FAKE_RECIPE = """
set -eu
[[ $* != *no_such_key* ]] || { echo "no such key" >&2; exit 2; }
[[ ${DRY_RUN:-0} == 1 ]] && exit 0
echo "$RUN" >>"$CALLS"
[[ $* != *dies* ]] || { echo "killed on purpose"; exit 9; }
mkdir -p "$RUN/rollouts"
says=left; [[ $* != *wrong* ]] || says=right
for step in 0 "$STEPS"; do
  echo '{"step": '$step', "data": {"reward/score/mean": 0.5}}' >>"$RUN/metrics.jsonl"
  echo '{"step": '$step', "split": "val", "session": 0, "sample_id": "a", "question": "side?", "reference": "left",
"response": "<CT_SCAN><thinking>x</thinking><answer>'$says'</answer>", "scores": {"score": 0.9, "acc": 1.0,
"embed_accuracy": 1.0, "llm_accuracy": -1.0}}' | tr -d '\\n' >>"$RUN/rollouts/scored.jsonl"
  echo >>"$RUN/rollouts/scored.jsonl"
done
"""


@pytest.mark.parametrize(
    ("kind", "reference", "candidate", "true"),
    [
        ("side", "left half", "Left half", True),
        ("side", "left half", "on the left", True),
        ("side", "left half", "right half", False),
        ("side", "left half", "left and right", False),
        ("side", "left half", "not left", False),
        ("side", "left half", "the left kidney", False),  # says more than a side
        ("presence", "no spleen present", "absent", True),
        ("presence", "no spleen present", "spleen present", False),
        ("presence", "no spleen present", "not certain", False),  # says nothing of presence
        ("presence", "no spleen present", "no", True),
        ("presence", "no spleen present", "the spleen is not present", True),
        ("presence", "no spleen present", "no liver present", False),
        ("presence", "spleen present", "Yes", True),
        ("presence", "spleen present", "present or absent", False),
        ("count", "three marked structures", "3", True),
        ("count", "three marked structures", "three structures", True),
        ("count", "three marked structures", "two marked structures", False),
        ("count", "three marked structures", "three of four", False),
        ("place", "left lower lobe", "left lower lobe", True),
        ("place", "left lower lobe", "lower lobe, left", False),  # open kinds are word for word
        ("open", "liver", None, False),
    ],
)
def test_the_oracle(kind: str, reference: str, candidate: str | None, true: bool) -> None:
    assert is_true(candidate, Known(reference, (), kind)) is true


@given(st.sampled_from(["left", "right"]), st.sampled_from(["side", "place", "open"]), st.text(max_size=12))
def test_the_other_side_is_never_true(side: str, kind: str, more: str) -> None:
    other = {"left": "right", "right": "left"}[side]
    assert not is_true(f"{other} {more}".strip(), Known(f"{side} half", (side,), kind))


def finding(step: int = 1, sample: str = "a", paid: float = 1.0, true: bool = True, kind: str = "side") -> Finding:
    return Finding(step, sample, kind, paid, true, {"embed_accuracy": paid}, "q?", "left", f"said {sample}", paid)


def test_the_table_states_paid_true_and_their_difference() -> None:
    # Seed 0: paid 1, 1; true 1, 0. Seed 1: paid 1, 0; true 1, 1. An early step does not count.
    early = finding(step=0, paid=0.0, true=False)
    seeds = {
        0: [early, finding(), finding(sample="b", true=False, kind="count")],
        1: [early, finding(), finding(sample="b", paid=0.0, kind="count")],
    }
    rows = {row.kind: row for row in table.rows({"v": seeds})}
    both = rows["all"]
    assert (both.paid.value, both.true.value, both.gap.value) == (0.75, 0.75, 0.0)  # (1 + 0.5) / 2, (0.5 + 1) / 2
    assert both.falsely_paid["embed_accuracy"].value == 0.25  # one of two responses in one of two seeds
    assert both.falsely_refused["embed_accuracy"].value == 0.25
    assert rows["count"].gap.value == 0.0
    assert rows["side"].true.value == 1.0
    # t with one degree of freedom is 12.706; gaps 0.5 and -0.5 have the standard error 0.5.
    assert both.gap.high == pytest.approx(12.706 * 0.5, rel=1e-4)
    assert table.over_seeds([0.5]).low is None


def test_variants_are_compared_on_the_samples_that_both_answered() -> None:
    names = [f"s{n}" for n in range(12)]
    worse = {0: [finding(sample=name, true=False) for name in names]}
    better = {0: [finding(sample=name) for name in names] + [finding(sample="only here")]}
    compared = table.against({"base": worse, "other": better}, "base")["other"]
    assert compared.difference.mean == 1.0
    assert compared.p_value == pytest.approx(2 / 2**12)  # all twelve signs alike, two-sided


def test_the_most_paid_untrue_answers_are_shown_once() -> None:
    shown = most_paid(
        {0: [finding(sample="a", paid=0.3, true=False), finding(sample="b", true=False), finding(sample="c")]}
    )
    assert [found.sample_id for found in shown] == ["b", "a"]


def write_study(folder: Path, **changes: object) -> Path:
    (folder / "recipe.sh").write_text(FAKE_RECIPE)
    (folder / "truth.jsonl").write_text('{"id": "a", "answer": "left", "aliases": [], "kind": "side"}\n')
    study = {
        "name": "s", "question": "Which?", "recipe": str(folder / "recipe.sh"), "steps": 3, "seeds": [0, 1],
        "truth": str(folder / "truth.jsonl"), "knobs": {"CALLS": "{out}/calls"},
        "variants": {"right": ["a=1"], "wrong": ["x=wrong"]},
        "setup": [{"makes": "{out}/made_{seed}", "command": ["touch", "{out}/made_{seed}"]}],
        **changes,
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(json.dumps(study))
    return path


def ablate(folder: Path, study: Path, *options: str, out: str = "o") -> tuple[int, str]:
    command = [
        sys.executable,
        "-c",
        "from medix_verl.cli import main; main()",
        "ablate",
        str(study),
        "--out",
        str(folder / out),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_study_runs_each_variant_once_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    study = write_study(tmp_path, variants={"right": [], "wrong": ["x=wrong"], "broken": ["x=dies"]})
    code, said = ablate(tmp_path, study)
    assert code == 2
    assert "2 runs are not done: broken, seed 0, broken, seed 1" in said
    out = tmp_path / "o"
    assert (out / "made_0").is_file()
    assert (out / "made_1").is_file()
    assert "| right | 1.000 (1.000 to 1.000) | 1.000 (1.000 to 1.000) | 0.000 (0.000 to 0.000) |" in said
    assert "| wrong | 1.000 (1.000 to 1.000) | 0.000 (0.000 to 0.000) | 1.000 (1.000 to 1.000) |" in said
    page = (out / "study.html").read_text()
    assert "killed on purpose" in page
    assert '<b class="bad">right</b>' in page
    assert (out / "curves.png").stat().st_size > 5_000
    assert "falsely paid by embed_accuracy" in (out / "table.csv").read_text()
    calls = (out / "calls").read_text().splitlines()
    assert len(calls) == 6
    before = (out / "table.csv").read_bytes()
    write_study(tmp_path, variants={"right": [], "wrong": ["x=wrong"]})  # the same folder is complete without the third
    code, said = ablate(tmp_path, study)
    assert code == 0
    assert said.count(": done") == 4
    assert (out / "calls").read_text().splitlines() == calls
    assert (out / "table.csv").read_bytes() == before


@pytest.mark.slow
def test_a_wrong_override_is_refused_before_the_first_variant_starts(tmp_path: Path) -> None:
    code, said = ablate(tmp_path, write_study(tmp_path, variants={"right": [], "bad": ["no_such_key=1"]}))
    assert code == 2
    assert "'bad'" in said
    assert "no such key" in said
    assert not (tmp_path / "o" / "calls").exists()


@pytest.mark.slow
def test_studies_share_runs_and_a_changed_variant_does_not_pass_for_the_old_one(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    shared = {"runs": "{studies}/runs", "seeds": [0], "knobs": {"CALLS": str(calls), "MODEL": "{studies}/model_{seed}"}}
    variants: dict[str, list[str]] = {"right": [], "wrong": ["x=wrong"]}

    def study(name: str, variants: dict[str, list[str]]) -> tuple[int, str]:
        return ablate(tmp_path, write_study(tmp_path, variants=variants, **shared), out=name)

    assert study("first", {"right": []})[0] == 0
    assert study("second", variants)[0] == 0  # another study, in another folder
    assert [Path(call).parent.name for call in calls.read_text().splitlines()] == ["right", "wrong"]
    code, said = study("third", {"right": ["x=wrong"]})
    assert code == 2
    assert "'right' with other settings" in said
    # What has not run yet may change.
    assert study("fourth", {"dies": ["x=dies"]})[0] == 2
    assert study("fourth", {"dies": []})[0] == 0
    assert [Path(call).parent.name for call in calls.read_text().splitlines()] == ["right", "wrong", "dies", "dies"]


def test_a_dry_run_prints_every_command_and_writes_nothing(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    done = CliRunner().invoke(app, ["ablate", str(study), "--out", str(tmp_path / "o"), "--dry-run"])
    assert done.exit_code == 0
    assert done.output.count("bash") == 4
    assert "SEED=1" in done.output
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": {"../x": []}}, "folder"),
        ({"variants": {}}, "no variants"),
        ({"baseline": "nobody"}, "no variant"),
        ({"recipe": "nowhere.sh"}, "no recipe"),
        ({"sedes": [1]}, "seeds"),
        ({"steps": 0}, "steps"),
        ({"seeds": [1, 1]}, "a seed twice"),
    ],
)
def test_a_wrong_study_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_study(write_study(tmp_path, **changes))


def test_a_variant_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    study.write_text(study.read_text().replace('"wrong"', '"right"'))
    with pytest.raises(DataError, match="'right' is there twice"):  # the last one alone would have run
        load_study(study)


TRUTH = {"id": "a", "answer": "left lung", "aliases": ["lung, left"], "kind": "place"}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{**TRUTH, "aliases": "left"}], "no list of texts"),  # each letter would be an answer
        ([{**TRUTH, "aliases": [1]}], "no list of texts"),
        ([TRUTH, {**TRUTH, "answer": "right lung"}], "'a' again"),
        ([{**TRUTH, "answer": None}], "no `answer`"),
        ([{**TRUTH, "answer": "?"}], "no `answer`"),  # no answer could be true
        ([{**TRUTH, "id": 1}], "no `id`"),
        ([], "no samples"),
    ],
)
def test_a_wrong_truth_is_refused(tmp_path: Path, rows: list[dict[str, object]], says: str) -> None:
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=says):
        read_truth(tmp_path / "truth.jsonl")


def test_a_missing_truth_is_refused_before_the_first_run(tmp_path: Path) -> None:
    study = write_study(tmp_path, truth=str(tmp_path / "gone.jsonl"))
    done = CliRunner().invoke(app, ["ablate", str(study), "--out", str(tmp_path / "o")])
    assert "gone.jsonl" in str(done.exception)
    assert not (tmp_path / "o").exists()


SCORED = {"split": "val", "step": 0, "sample_id": "a", "response": "", "scores": {"score": 0.5, "llm_accuracy": 1.0}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sample_id": "z"}, "'z', which the truth does not know"),
        ({"scores": {}}, "Line 1 of .* is no scored response"),
        ({"scores": {"score": 0.5, "llm_accuracy": 5}}, "no component gives"),
        ({"scores": {"score": float("nan")}}, "no component gives"),
        ({"response": None}, "no scored response"),
        ({"step": "x"}, "no scored response"),
        ({"scores": [1]}, "no scored response"),
    ],
)
def test_a_line_that_is_no_response_of_the_study_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write_study(tmp_path)
    log = tmp_path / "rollouts" / "scored.jsonl"
    log.parent.mkdir()
    log.write_text(json.dumps(SCORED) + "\nhalf a line {\n")
    notes: list[str] = []
    assert [found.paid for found in read_findings(tmp_path, read_truth(tmp_path / "truth.jsonl"), notes)] == [1.0]
    assert len(notes) == 1  # as a run that was killed while writing leaves it: told, and no fault
    log.write_text(json.dumps(SCORED | change) + "\n")
    with pytest.raises(DataError, match=says):
        read_findings(tmp_path, read_truth(tmp_path / "truth.jsonl"))


def answers(*said: str, step: int, split: str) -> Group:
    """Responses that the embedder pays in full, to a question whose answer is `left lung`."""
    scores = {"score": 1.0, "embed_accuracy": 1.0}
    responses = [Response(n, n, "", 0, scores, text, 9, (), None, "", 0, {}, True) for n, text in enumerate(said)]
    return Group(f"{split}{step}", step, split, "a", "Where?", "left lung", "CT_SCAN", responses)


def test_the_monitors_are_held_against_the_truth() -> None:
    groups = [
        answers("right lung", "left lung", step=1, split="train"),
        answers("right lung", "right lung", "left lung", "left lung", step=2, split="train"),
        answers("right lung", step=2, split="val"),  # untrue, and flagged
        answers("the lung", step=3, split="val"),  # untrue, and not flagged: it contradicts nothing
        answers("left lung", step=4, split="val"),
    ]
    gamed, sound = (RunFolder(Path("run"), Metrics([]), found) for found in (groups, groups[-1:]))
    one, other = watch({"gamed": {3: gamed}, "sound": {3: sound}}, {"a": Known("left lung", (), "place")})
    assert (one.monitor, one.spoke, one.peaks) == ("Paid though it contradicts the reference", (3,), (0.5,))
    assert (one.flagged, one.untrue, one.falsely_paid, one.caught) == (1, 1, 2, 1)
    assert other == Watched("sound", "")
    shown = as_markdown([one, other])
    assert "| gamed | Paid though it contradicts the reference | 3 | 0.50 | 1 | 100% | 50% |" in shown
    assert "| sound | no monitor spoke | none |  |  |  |  |" in shown


def test_a_run_that_lost_responses_is_not_held_against_whole_ones() -> None:
    whole = [finding(step=0), finding(step=0, sample="b"), finding(), finding(sample="b")]
    table.check_whole({"v": {0: whole, 1: whole}}, 1)
    with pytest.raises(DataError, match="w, seed 1: 1 of 2 samples have no response at step 1"):
        table.check_whole({"v": {0: whole}, "w": {1: whole[:-1]}}, 1)
    # Without its last validation the whole table would be of step 0, and without any the variant would not be in it.
    for left in (whole[:2], []):
        with pytest.raises(DataError, match="w, seed 1: 2 of 2 samples"):
            table.check_whole({"v": {0: whole}, "w": {1: left}}, 1)
    with pytest.raises(DataError, match="No run was validated at step 2"):
        table.check_whole({"v": {0: whole}}, 2)


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_come_with_the_project_are_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study = load_study(path)
    assert len(runs_of(study, Path("out"))) == len(study.variants) * 3
    assert len(read_truth(Path(study.truth))) == 123
    takes = subprocess.run([sys.executable, "-m", "examples.tiny_vlm", "--help"], capture_output=True, text=True).stdout
    for _, command in setup_steps(study, Path("out")):
        assert command[0] == "medix" or all(word in takes for word in command if word.startswith("--"))


def test_the_studies_that_come_with_the_project_share_their_common_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = set()
    for path in (ROOT / "examples" / "studies").glob("*.yaml"):
        study = load_study(path)
        runs = [run for run in runs_of(study, Path("/studies") / study.name) if run.variant == "recommended"]
        found.add(tuple((run.folder, run.command, tuple(run.environment.items())) for run in runs))
    assert len(found) == 1
