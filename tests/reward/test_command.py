"""`medix score` as a user types it: without a server and a model where rows state the findings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from medix.errors import ConfigError, DataError
from medix.response import format_response
from medix.scorer.command import score

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
        ({**ROW, "aliases": "lung"}, "aliases"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused_with_its_line(row: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        run(tmp_path, [row])


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
        "import sys, asyncio, reward_fns, medix.scorer.service, medix.rule_judge.server\n"
        "heavy = {'torch', 'verl', 'ray', 'transformers', 'sentence_transformers', 'vllm'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
