"""The example rewards, each as its file says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from medix.response import format_response
from reward_fns import AssumedScorers, ScoringInput, build_composite
from reward_fns.command import score
from reward_fns.scorers.types import JudgeRequest, Verdict

FOLDER = Path(__file__).parents[2] / "examples" / "rewards"
app = Typer()
app.command()(score)


def only(path: str, **options: Any) -> dict[str, Any]:
    rest = dict.fromkeys(("llm_accuracy", "embed_accuracy", "modality", "format"))
    return {"components": {**rest, "mine": {"path": f"{FOLDER}/{path}", "weight": 1.0, **options}}}


@pytest.mark.parametrize(
    ("answer", "options", "value"),
    [("pneumonia", {}, 1.0), ("pneumonia or edema", {}, 0.0), ("pneumonia or edema", {"most": 1}, 1.0), ("", {}, 0.0)],
)
async def test_a_class_with_options(answer: str, options: dict[str, Any], value: float) -> None:
    item = ScoringInput(format_response("X_RAY", "t", answer), "pneumonia")
    assert (await build_composite(only("hedging.py:Hedging", **options), AssumedScorers()).score(item)).total == value


async def test_a_question_of_its_own_is_asked_beside_the_verdict_and_is_not_recorded_as_it() -> None:
    asked: list[JudgeRequest] = []

    class FakeJudge(AssumedScorers):
        async def judge(self, request: JudgeRequest) -> Verdict:
            asked.append(request)
            return Verdict(request.template is None, raw="verdict" if request.template is None else "own")

    plausible = {"path": f"{FOLDER}/plausible.py:Plausible", "weight": 0.1}
    composite = build_composite({"components": {"plausible": plausible}}, FakeJudge(cosine=0.9))
    found = await composite.score(ScoringInput(format_response("X_RAY", "White lung.", "a"), "b", "Why?", "X_RAY"))
    assert [(request.reference, request.candidate) for request in asked if request.template] == [("a", "White lung.")]
    assert (found.flat()["plausible"], found.flat()["llm_accuracy"]) == (0, 1)
    assert found.record()["judge"]["raw"] == "verdict"


@pytest.mark.parametrize(("box", "answer", "value"), [([2, 8], "right lung", 1.0), ([60, 90], "right lung", 0.0)])
def test_images_and_further_columns_of_a_row_reach_a_component(
    box: list[int], answer: str, value: float, tmp_path: Path
) -> None:
    picture = io.BytesIO()
    Image.new("L", (100, 50)).save(picture, "PNG")
    (tmp_path / "a.png").write_bytes(picture.getvalue())
    row = {"response": format_response("X_RAY", "t", answer), "reference": "b", "images": ["a.png"], "box": box}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    off = [f"medix.reward.components.{name}=null" for name in ("llm_accuracy", "embed_accuracy", "modality", "format")]
    side = f"+medix.reward.components.side={{path: {FOLDER}/sees_image.py:side_of_finding, weight: 1}}"
    typed = ["--jsonl", str(tmp_path / "rows.jsonl"), "--json", *off, side]
    result = CliRunner().invoke(app, typed, catch_exceptions=False)
    assert json.loads(result.stdout)["score"] == value


def test_images_are_read_at_first_use_only() -> None:
    reads: list[int] = []
    item = ScoringInput("", "x", load_images=lambda: reads.append(1) or [b"png"])
    assert reads == []
    assert (item.images, item.images, reads) == ((b"png",), (b"png",), [1])


def test_a_preset_of_ones_own_is_one_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parents[1])
    typed = [format_response("X_RAY", "t", "pneumonia or edema"), "--reference", "pneumonia", "--modality", "X_RAY"]
    typed += ["--preset", "examples/rewards/mine.yaml", "--assume-judge", "yes", "--json"]
    result = CliRunner().invoke(app, typed, catch_exceptions=False)
    assert json.loads(result.stdout)["score"] == pytest.approx(0.9)  # 0.8 + 0.1 of 1.0: it hedges
