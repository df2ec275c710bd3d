"""`medix score` as a user types it: without a server and a model where rows state the findings."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from medix.errors import ConfigError, DataError
from medix.response import format_response
from reward_fns.command import score
from reward_fns.scoring import AT_ONCE

app = Typer()
app.command()(score)
ROW = {"response": format_response("X_RAY", "t", "lung infection"), "answer": "pneumonia", "modality": "X_RAY"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "rewards" / "brevity.py"


def run(tmp_path: Path, rows: list[Any], *arguments: str) -> list[dict[str, Any]]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    result = CliRunner().invoke(app, ["--jsonl", str(path), "--json", *arguments], catch_exceptions=False)
    return [json.loads(line) for line in result.stdout.splitlines()]


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
    found = run(tmp_path, rows, "medix.reward.components.embed_accuracy.weight=0", brevity)[0]
    # 0.5175 + 0.045 + 0.10 in full and 0.1 at a half (two words of one allowed), over 0.7625.
    assert found["score"] == pytest.approx((0.6625 + 0.05) / 0.7625)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "rows.jsonl:1"), ("[1]", "JSON object"), ({"answer": "x"}, "'response'"), ({"response": "x"}, "'answer'"),
        ({**ROW, "modality": "XRAY"}, "X_RAY"), ({**ROW, "assume_judge": "maybe"}, "assume_judge"),
        ({**ROW, "assume_similarity": 7}, "assume_similarity"), ({**ROW, "answer": " "}, "non-empty"),
        ({**ROW, "aliases": "lung"}, "aliases"), ({**ROW, "asume_judge": "yes"}, "[Dd]id you mean 'assume_judge'"),
        ("", "at least one row"), ("\n\n", "at least one row"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused_with_its_line(row: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        run(tmp_path, [row])


@pytest.mark.parametrize("field", ["hospital", "idx", "qid", "response_id", "answers"])
def test_further_fields_of_a_row_are_left_alone(field: str, tmp_path: Path) -> None:
    """Also where they look like one of ours, which the row states: `answers` beside `answer` is no slip."""
    assert run(tmp_path, [{**ROW, "assume_judge": "yes", "assume_similarity": 0.9, field: "B"}])[0]["score"] == 1.0


def test_what_is_assumed_on_the_command_line_stands_in_for_rows_that_do_not_say(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "assume_judge": "no"}]
    found = run(tmp_path, rows, "--assume-judge", "yes", "--assume-similarity", "0.9")
    assert [row["score"] for row in found] == pytest.approx([1.0, 0.145])


def test_fields_of_a_single_response_beside_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--modality"):
        run(tmp_path, [ROW], "--modality", "X_RAY")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("medix.reward.components=5", "a mapping"), ("medix.reward.components.format=5", "a mapping"),
        ("medix.sorer.judge.model=x", "[Dd]id you mean 'scorer'"),
        ("medix.scorer.judge.modle=x", "[Dd]id you mean 'model'"),
        ("medix.reward.components.format.weight=[1", "a value"),
        ("medix.scorer.judge.api_key_env=NO_SUCH_KEY", "NO_SUCH_KEY"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_refused(argument: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, [ROW], "--judge-url", "http://127.0.0.1:9", argument)


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    overrides = ["medix.reward.components.format.weight=1e-3", "medix.reward.components.modality.weight=0"]
    overrides += ["medix.reward.components.embed_accuracy.weight=0"]
    found = run(tmp_path, [{**ROW, "assume_judge": "no"}], *overrides)[0]
    assert found["score"] == pytest.approx(0.001 / 0.5185)  # only the form, of 0.5175 + 0.001


def test_a_hosted_judge_gets_the_key_that_its_variable_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    class FakeHosted(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"choices": [{"message": {"content": "YES"}}]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHosted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HOSTED_KEY", "k-1")
    overrides = [f"medix.scorer.judge.urls=[http://127.0.0.1:{server.server_port}]"]
    overrides += ["medix.scorer.judge.api_key_env=HOSTED_KEY", "medix.reward.components.embed_accuracy.weight=0"]
    row = {**ROW, "response": format_response("X_RAY", "t", "a finding of its own")}
    assert run(tmp_path, [row], *overrides)[0]["score"] == 1.0
    assert seen == ["Bearer k-1"]
    server.shutdown()


def test_a_byte_order_mark_and_half_a_surrogate_pair_are_no_obstacle(tmp_path: Path) -> None:
    row = {**ROW, "id": "a\ud83d", "assume_judge": "yes", "assume_similarity": 0.9}
    found = run(tmp_path, ["\ufeff" + json.dumps(row)])
    assert (found[0]["score"], found[0]["sample_id"]) == (1.0, "a\ud83d")


def test_rows_are_scored_as_they_come_and_what_is_done_is_out_before_a_wrong_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({**ROW, "assume_judge": "yes", "assume_similarity": 0.9})
    path.write_text((good + "\n") * AT_ONCE + "{\n")  # one full round of work, then a wrong line
    result = CliRunner().invoke(app, ["--jsonl", str(path), "--json"])
    assert isinstance(result.exception, DataError)
    assert len(result.stdout.splitlines()) == AT_ONCE


def test_a_judge_that_is_needed_but_not_named_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--judge-url"):
        run(tmp_path, [ROW])


def test_one_response_is_a_table_and_the_embedded_judge_needs_no_set_up() -> None:
    arguments = [ROW["response"], "--answer", "pneumonia", "--modality", "X_RAY", "--judge-url", "rule-judge"]
    arguments += ["medix.reward.components.embed_accuracy.weight=0"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "1.0000" in result.stdout


def test_scoring_needs_no_torch_no_verl_and_no_ray() -> None:
    code = (
        "import sys, asyncio, reward_fns, reward_fns.scorers.service, examples.rule_judge.server\n"
        "heavy = {'torch', 'verl', 'ray', 'transformers', 'sentence_transformers', 'vllm'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
