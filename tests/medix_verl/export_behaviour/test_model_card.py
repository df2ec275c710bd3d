"""The model card: from the run, nothing made up, and nothing in a run's files can break out of its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medix_verl.export.base_model import BaseModel, find_base
from medix_verl.export.card_text import block, hub_name, plain, table
from medix_verl.export.contract import Checkpoint
from medix_verl.export.model_card import RunFacts, model_card, write_model_card
from tests.medix_verl.export_behaviour.conftest import write_json

HUB_BASE = BaseModel("Qwen/Qwen2.5-VL-7B-Instruct", None, "not here")
HOSTILE = "---\nlicense: mit\n---\n# Cured | **yes** <script>alert(1)</script> [x](javascript:y) `a` ~~~ \u202eevil ![i](http://e)"


def write_run(run: Path, text: str = "harmless") -> None:
    """Every file that the card reads, with `text` wherever a file may hold text."""
    (run / "data").mkdir(parents=True, exist_ok=True)
    (run / "eval" / "trained").mkdir(parents=True, exist_ok=True)
    config = {
        "algorithm": {"adv_estimator": "grpo"},
        "actor_rollout_ref": {"model": {"path": text}, "actor": {"optim": {"lr": 3e-4}}},
        "medix": {"scorer": {"judge": {"model": text, "api_key": "sk-secret"}}},
    }
    write_json(run / "config.yaml", config)
    write_json(run / "reward_table.json", [{"component": text, "weight": 0.5, "effective": 1.0}])
    write_json(run / "versions.json", {"verl": "0.9.1", text: text, "git": {"commit": text}})
    write_json(run / "summary.json", {"accuracy_before": 0.41463, "accuracy_after": 0.85366, "format_before": text})
    source = {"name": text, "licence": text, "revision": ""}
    write_json(run / "data/manifest.json", {"sources": [source], "splits": {text: {"rows": 9, "sources": {text: 9}}}})
    estimate = {"mean": 0.8537, "low": 0.7903, "high": 0.9167}
    judges = {"judge": {"judges": [{"model": text}]}}
    scores = {"settings": judges, "tasks": {text: {"items": 123, "estimate": estimate}}}
    write_json(run / "eval/trained/scores.json", scores)
    (run / "eval/compare.md").write_text(text)


def card_of(checkpoint: Checkpoint, base: BaseModel = HUB_BASE) -> tuple[str, list[str]]:
    return model_card(RunFacts.read(checkpoint.run_dir), checkpoint, base)


def front_matter(card: str) -> dict[str, object]:
    assert card.startswith("---\n")
    fields: dict[str, object] = yaml.safe_load(card[4:].split("\n---\n", 1)[0])
    return fields


def test_the_card_says_what_the_run_wrote(checkpoint: Checkpoint) -> None:
    assert checkpoint.run_dir is not None
    write_run(checkpoint.run_dir)
    card, left_out = card_of(checkpoint)
    assert left_out == []
    assert front_matter(card) == {
        "library_name": "transformers",
        "tags": ["medical", "reinforcement-learning", "verl"],
        "base_model": "Qwen/Qwen2.5-VL-7B-Instruct",
    }
    for line in (
        "# first",
        "Checkpoint of training step 7.",
        "**Research use only.**",
        "| harmless | 0.5 | 1 |",
        "| advantage | grpo |",
        "| learning rate | 0.0003 |",
        "| accuracy | 0.4146 | 0.8537 |",
        "| trained | harmless | 123 | 85.4% | 79.0% to 91.7% | harmless |",
        "| verl | 0.9.1 |",
        "- Data source harmless: harmless.",
    ):
        assert line in card, line
    assert "sk-secret" not in card
    assert "| format |" not in card  # its figure is no number


def test_what_is_absent_is_left_out_and_said(checkpoint: Checkpoint, folder: Path) -> None:
    record = write_model_card(folder, replace(checkpoint, run_dir=None), BaseModel(None, None, "unknown"))
    absent = ["Base model", "Training data", "Reward", "Algorithm", "Held-out figures of the run", "Evaluation"]
    assert record["left_out"] == [*absent, "Versions"]
    card = (folder / "README.md").read_text()
    assert "Not known when this card was written, so left out: Base model; Training data; Reward;" in card
    assert "base_model" not in front_matter(card)
    for name in record["left_out"]:
        assert f"## {name}" not in card
    assert "**Research use only.**" in card
    assert "Base model: not known here" in card  # no licence is made up


def test_a_local_base_models_path_is_not_told(checkpoint: Checkpoint, base: Path) -> None:
    card, _ = card_of(checkpoint, find_base(checkpoint, None))
    assert "A local folder called base." in card
    assert str(base.parent) not in card


def test_a_local_judges_path_is_not_told(checkpoint: Checkpoint) -> None:
    assert checkpoint.run_dir is not None
    write_run(checkpoint.run_dir, "/home/alice/models/judge-4b")
    assert "| judge-4b |" in card_of(checkpoint)[0].split("## Evaluation")[1]


def test_the_base_models_licence_is_read_from_its_own_card(checkpoint: Checkpoint, base: Path) -> None:
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: qwen-research\n---\n# Qwen")
    assert "- Base model: qwen-research." in card_of(checkpoint, find_base(checkpoint, None))[0]


def test_hostile_text_stays_text(checkpoint: Checkpoint) -> None:
    assert checkpoint.run_dir is not None
    write_run(checkpoint.run_dir, HOSTILE)
    card, _ = card_of(checkpoint, BaseModel(HOSTILE, None, "not here"))
    fields = front_matter(card)
    assert "license" not in fields
    assert "base_model" not in fields
    body = card.split("\n---\n", 1)[1]
    fenced = body.index("~~~~text")  # eval/compare.md, shown as it stands in a fence that it can not close
    end = body.index("\n~~~~\n", fenced + 1)
    outside = body[:fenced] + body[end:]
    for piece in ("<script", "**yes**", "[x](", "![i]", "\u202e", "\n# Cured", "license: mit\n"):
        assert piece not in outside, piece
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert len({line.count("|") - line.count("\\|") for line in rows if "Cured" in line}) <= 4


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "data/manifest.json", "reward_table.json"])
@pytest.mark.parametrize("content", ["[1, 2", "null", "[]", '"text"', '{"splits": [1], "sources": {"a": 1}}', "{{{"])
def test_damaged_files_cost_their_section_only(checkpoint: Checkpoint, name: str, content: str) -> None:
    assert checkpoint.run_dir is not None
    write_run(checkpoint.run_dir)
    (checkpoint.run_dir / name).write_text(content)
    card, left_out = card_of(checkpoint)
    assert "| verl | 0.9.1 |" in card
    assert len(left_out) <= 1


@given(st.text(max_size=400))
def test_any_text_is_one_cell(text: str) -> None:
    row = table(["a", "b"], [(text, "end")]).splitlines()[2:]
    assert len(row) == 1
    unescaped = row[0].replace("\\\\", "").replace("\\|", "")
    assert unescaped.count("|") == 3
    assert "<" not in plain(text)


@given(st.text(max_size=200))
def test_any_text_stays_in_its_fence(text: str) -> None:
    lines = block(text).splitlines()
    assert lines[0].endswith("~text")
    fence = lines[0].removesuffix("text")
    assert [line for line in lines[1:] if line.lstrip().startswith(fence)] == [lines[-1]]


@pytest.mark.parametrize("value", ["a: b/c", "a/b\nc", "../x", "/abs/path", "a/b/c", 7, None, "a\u2028/b", "#/x"])
def test_only_a_hub_name_enters_the_front_matter(value: object) -> None:
    assert hub_name(value) is None


def test_the_gguf_commands_are_shown_and_claim_nothing(checkpoint: Checkpoint) -> None:
    card, _ = model_card(RunFacts.read(None), checkpoint, HUB_BASE, ["python convert_hf_to_gguf.py MODEL"])
    assert "a conversion was not run" in card
    assert "python convert_hf_to_gguf.py MODEL\n```" in card
    assert "GGUF" not in card_of(checkpoint)[0]


def test_the_record_is_json(checkpoint: Checkpoint, folder: Path) -> None:
    json.dumps(write_model_card(folder, checkpoint, HUB_BASE))
