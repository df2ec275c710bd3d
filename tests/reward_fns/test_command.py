"""`medix score` as a user types it: without a server and a model where rows state the findings."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer import Typer
from typer.testing import CliRunner

from medix.errors import ConfigError, DataError, MedixError
from medix.response import format_response
from reward_fns import command

app = Typer()
app.command()(command.score)
ROW = {"response": format_response("X_RAY", "t", "lung infection"), "reference": "pneumonia", "modality": "X_RAY"}
SURE = {"assume_judge": "yes", "assume_similarity": 0.9}
EXAMPLE = Path(__file__).parents[2] / "examples" / "rewards" / "brevity.py"
NO_EMBEDDER = "medix.reward.components.embed_accuracy.weight=0"


def write(tmp_path: Path, rows: list[Any]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def invoke(path: Path, *arguments: str, catch: bool = False) -> Result:
    return CliRunner().invoke(app, ["--jsonl", str(path), *arguments], catch_exceptions=catch)


def run(tmp_path: Path, rows: list[Any], *arguments: str) -> list[dict[str, Any]]:
    stdout = invoke(write(tmp_path, rows), "--json", *arguments).stdout
    return [json.loads(line) for line in stdout.splitlines()]


@contextlib.contextmanager
def fake_judge(answer: Callable[[int], str | None]) -> Iterator[tuple[str, list[str | None]]]:
    """A judge over HTTP that says `answer(number of the call)`; None hangs until the test ends."""
    keys: list[str | None] = []
    ended = threading.Event()

    class FakeHosted(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers["Authorization"])
            said = answer(len(keys))
            if said is None:
                ended.wait(20)
                return
            body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHosted)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        ended.set()
        server.shutdown()


def judged(number: int) -> dict[str, Any]:
    return {**ROW, "response": format_response("X_RAY", "t", f"a finding of its own {'abcdefghijklmnop'[number]}")}


def test_rows_with_assumed_findings_give_one_object_a_line(tmp_path: Path) -> None:
    rows = [
        {**ROW, "assume_judge": "yes", "assume_similarity": 0.83, "question": "?"},
        {**ROW, "assume_judge": "no", "assume_similarity": 0.83},
        {**ROW, "modality": None, "assume_judge": "yes", "assume_similarity": 0.1},
    ]
    strict, paper = run(tmp_path, rows), run(tmp_path, rows, "--preset", "paper")
    # strict: the judge's NO vetoes the embedder, so 0.045 + 0.10; a synonym counts as near; no modality: renormalised.
    assert [row["score"] for row in strict] == pytest.approx([1.0, 0.145, 1.0])
    # paper: 0.3375 is paid without the judge; a reference without a tag earns the form alone.
    assert [row["score"] for row in paper] == pytest.approx([1.0, 0.4825, 0.1])
    assert strict[0]["llm_accuracy"] == strict[0]["embed_accuracy"] == 1.0
    assert strict[2]["modality"] is None


def test_overrides_and_custom_components_as_in_training(tmp_path: Path) -> None:
    rows = [{**ROW, "assume_judge": "yes"}]
    brevity = f"+medix.reward.components.brevity={{path:{EXAMPLE}:brevity,weight:0.1,words:1}}"
    found = run(tmp_path, rows, NO_EMBEDDER, brevity)[0]
    # 0.5175 + 0.045 + 0.10 in full and 0.1 at a half (two words of one allowed), over 0.7625.
    assert found["score"] == pytest.approx((0.6625 + 0.05) / 0.7625)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "rows.jsonl:1"), ("[1]", "JSON object"), ("[" * 100_000, "JSON object"), ("\x00" * 50, "JSON object"),
        ({"reference": "x"}, "'response'"), ({"response": "x"}, "'reference'"), ({**ROW, "modality": "XRAY"}, "X_RAY"),
        ({**ROW, "assume_judge": "maybe"}, "assume_judge"), ({**ROW, "assume_similarity": 7}, "assume_similarity"),
        ('{"response": "x", "reference": "y", "assume_similarity": NaN}', "assume_similarity"),
        ({**ROW, "reference": " "}, "letter or digit"), ({**ROW, "reference": "."}, "letter or digit"),
        ({**ROW, "aliases": "lung"}, "aliases"), ({**ROW, "aliases": [5]}, "aliases"),
        ({**ROW, "response": 5}, "response"),
        ({**ROW, "asume_judge": "yes"}, "[Dd]id you mean 'assume_judge'"), ("", "no row"), ("\n\n", "no row"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_one_message_with_its_line(row: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says) as found:
        run(tmp_path, [row])
    assert len(str(found.value)) < 600


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(DataError, match="There is no file"):
            invoke(path)


@pytest.mark.parametrize("field", ["hospital", "idx", "qid", "response_id", "references"])
def test_further_fields_of_a_row_are_left_alone(field: str, tmp_path: Path) -> None:
    """Also where they look like one of ours, which the row states: `references` beside `reference` is no slip."""
    assert run(tmp_path, [{**ROW, **SURE, field: "B"}])[0]["score"] == 1.0


def test_what_is_assumed_on_the_command_line_stands_in_for_rows_that_do_not_say(tmp_path: Path) -> None:
    found = run(tmp_path, [ROW, {**ROW, "assume_judge": "no"}], "--assume-judge", "yes", "--assume-similarity", "0.9")
    assert [row["score"] for row in found] == pytest.approx([1.0, 0.145])


def test_fields_of_a_single_response_beside_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--modality"):
        run(tmp_path, [ROW], "--modality", "X_RAY")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("medix.reward.components=5", "a mapping"), ("medix.reward.components.format=5", "a mapping"),
        ("medix.sorer.judge.model=x", "[Dd]id you mean 'scorer'"), ("medix.reward=5", "sets nothing"),
        ("medix.scorer.judge.modle=x", "[Dd]id you mean 'model'"),
        ("medix.reward.components.format.weight=[1", "readable value"),
        ("medix.scorer.judge.api_key_env=NO_SUCH_KEY", "NO_SUCH_KEY"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_refused(argument: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, [ROW], "--judge-url", "http://127.0.0.1:9", argument)


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    overrides = ["medix.reward.components.format.weight=1e-3", "medix.reward.components.modality.weight=0"]
    found = run(tmp_path, [{**ROW, "assume_judge": "no"}], *overrides, NO_EMBEDDER)[0]
    assert found["score"] == pytest.approx(0.001 / 0.5185)  # only the form, of 0.5175 + 0.001


def test_a_hosted_judge_gets_the_key_that_its_variable_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_KEY", "k-1")
    with fake_judge(lambda number: "YES") as (url, keys):
        key = "medix.scorer.judge.api_key_env=HOSTED_KEY"
        assert run(tmp_path, [judged(0)], f"medix.scorer.judge.urls=[{url}]", key, NO_EMBEDDER)[0]["score"] == 1.0
    assert keys == ["Bearer k-1"]


def test_a_byte_order_mark_and_half_a_surrogate_pair_are_no_obstacle(tmp_path: Path) -> None:
    found = run(tmp_path, ["\ufeff" + json.dumps({**ROW, **SURE, "id": "a\ud83d"})])
    assert (found[0]["score"], found[0]["sample_id"]) == (1.0, "a\ud83d")


@pytest.mark.parametrize("wrong", ["{", json.dumps({"response": "x"})], ids=["no object", "no reference"])
def test_what_is_done_is_out_before_a_wrong_line_is_told(wrong: str, tmp_path: Path) -> None:
    result = invoke(write(tmp_path, [{**ROW, **SURE}] * 3 + [wrong]), "--json", catch=True)
    assert isinstance(result.exception, DataError)
    assert ":4" in str(result.exception)
    assert len(result.stdout.splitlines()) == 3


def test_a_run_of_the_same_command_asks_for_no_verdict_twice_and_a_dying_judge_loses_none(tmp_path: Path) -> None:
    """Of six rows the judge dies at the fifth: four are printed, and the next run asks for the other two only."""
    path = write(tmp_path, [judged(number) for number in range(6)])
    one_by_one = "medix.scorer.judge.max_in_flight=1"
    with fake_judge(lambda number: "YES" if number <= 4 else "neither") as (url, asked):
        options = ("--json", "--judge-url", url, "medix.scorer.judge.retries=0", one_by_one, NO_EMBEDDER)
        result = invoke(path, *options, "medix.scorer.hold_limit_s=0.1", catch=True)
    assert isinstance(result.exception, MedixError)
    assert len(result.stdout.splitlines()) == 4
    with fake_judge(lambda number: "YES") as (url, asked):
        result = invoke(path, "--json", "--judge-url", url, NO_EMBEDDER)
    assert (len(result.stdout.splitlines()), len(asked)) == (6, 2)


def test_a_hanging_judge_is_told_while_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PATIENCE_S", 0.2)
    assert command.HOLD_LIMIT_S == 30.0
    with fake_judge(lambda number: None) as (url, _):
        limits = (
            "medix.scorer.judge.timeout_s=1",
            "medix.scorer.judge.retries=0",
            "medix.scorer.hold_limit_s=0.1",
        )
        result = invoke(write(tmp_path, [judged(0)]), "--judge-url", url, *limits, NO_EMBEDDER, catch=True)
        assert isinstance(result.exception, MedixError)
        assert f"waiting for {url}" in result.stderr


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_repeats_only_calls_in_flight(tmp_path: Path) -> None:
    path = write(tmp_path, [judged(number) for number in range(16)])

    def slowly(number: int) -> str:
        time.sleep(0.3)
        return "YES"

    with fake_judge(slowly) as (url, asked):
        code = "import typer; from reward_fns.command import score; app = typer.Typer(); app.command()(score); app()"
        typed = [sys.executable, "-c", code, "--jsonl", str(path), "--json", "--judge-url", url, NO_EMBEDDER]
        typed += ["medix.scorer.judge.max_in_flight=2"]
        first = subprocess.Popen(typed, stdout=subprocess.PIPE)
        while len(asked) < 8:
            time.sleep(0.02)
        first.kill()
        first.communicate()
        repeated = len(asked)
        done = subprocess.run(typed, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 16
    assert len(asked) <= 16 + 2, f"{repeated} were asked before the kill"


def test_a_judge_that_is_needed_but_not_named_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--judge-url"):
        run(tmp_path, [ROW], "--assume-similarity", "0.9")


def test_one_response_is_a_table_and_the_rule_judge_needs_no_set_up() -> None:
    arguments = [ROW["response"], "--reference", "pneumonia", "--modality", "X_RAY", "--judge-url", "rule-judge"]
    result = CliRunner().invoke(app, [*arguments, NO_EMBEDDER], catch_exceptions=False)
    assert result.exit_code == 0
    assert "1.0000" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def run_row(group: str, answer: str, total: float, verdict: bool | None, cosine: float = -1.0) -> dict[str, Any]:
    """A row of `rollouts/scored.jsonl` as the reward manager writes it."""
    return {
        **{"step": 3, "split": "train", "group": group, "session": 0, "sample_id": "s1", "question": "Diagnosis?"},
        **{"reference": "pneumonia", "modality": "X_RAY", "response": format_response("X_RAY", "t", answer)},
        "scores": {"score": total, "embed_similarity": cosine},
        "detail": {"score": total, "judge": None if verdict is None else {"correct": verdict, "raw": "YES"}},
    }


ROLLOUTS = [
    run_row("g1", "pneumonia", 1.0, None),
    run_row("g1", "lobar infection", 0.145, False, 0.85),
    run_row("g1", "air", 0.145, False, 0.1),
    run_row("g2", "lung infection", 1.0, True, 0.7),
    run_row("g2", "infected lobe of lung", 0.145, False, 0.9),
]


def test_a_runs_own_rollouts_are_scored_again_as_they_are_with_the_change_of_ranks(tmp_path: Path) -> None:
    """Under `paper` 0.85 and 0.9 pay the embedder: 0.4825; in g2 0.7 no longer does: 0.6625."""
    path = write(tmp_path, [*ROLLOUTS, '{"half": "writ'])
    path.write_text(path.read_text().rstrip("\n"))  # a killed writer's last line
    result = invoke(path, "--json", "--preset", "paper")
    assert [json.loads(line)["score"] for line in result.stdout.splitlines()] == pytest.approx(
        [1.0, 0.4825, 0.145, 0.6625, 0.4825]
    )
    assert "the last line is half written; all others were read" in result.stderr
    for line in (
        "5 responses in 2 groups",
        "mean score                    0.4870        0.5545",  # 2.435 / 5, 2.7725 / 5
        "groups with spread                 2             2",
        "pairs of a group in another order     0 of 4",
        "pairs that were equal and are not     1 of 4 (25.0 %)",  # the second and third of g1
        "groups with another best response     0 of 2",
        "advantages that change their sign     0 of 5",
        "correlation of the advantages         0.9",
    ):
        assert line in result.stderr, result.stderr
    assert "0.4825" in invoke(path, "--preset", "paper").stdout


def test_a_scorer_that_is_named_is_asked_in_place_of_what_the_run_recorded(tmp_path: Path) -> None:
    with fake_judge(lambda number: "YES") as (url, asked):
        found = run(tmp_path, [run_row("g", "lobar infection", 0.145, False)], "--judge-url", url, NO_EMBEDDER)
    assert (found[0]["score"], len(asked)) == (1.0, 1)


def test_scoring_needs_no_torch_no_verl_and_no_ray() -> None:
    code = (
        "import sys, asyncio, reward_fns, reward_fns.command, reward_fns.scorers.service\n"
        "heavy = {'torch', 'verl', 'ray', 'transformers', 'sentence_transformers', 'vllm'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
