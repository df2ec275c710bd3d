"""The reward manager on a real DataProto; judge and embedder are fakes that answer as told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError, ScorerError
from medix_verl.preflight.scorers import FIXED_VERDICTS
from medix_verl.report.run_folder import is_component
from medix_verl.run_config import compose_config
from reward_fns import AssumedScorers
from reward_fns.scorers.types import JudgeRequest, RefusedSample, Verdict

pytestmark = [
    pytest.mark.slow,  # imports torch, veRL and Ray
    # veRL's base class asks for the event loop of a worker that has none yet.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

REFUSED = "sample_refused"
RIGHT = "<X_RAY><thinking>Opacity.</thinking><answer>lung infection</answer>"


class FakeTokenizer:
    """A token is a character."""

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return "".join(chr(int(number)) for number in ids)


class FakeService(AssumedScorers):
    """Stands for the scorer service: right on the fixed verdicts but the `wrong` ones, or failing, YES and 0.9 else."""

    judge_faults, at_once = 0, 4
    wrong: tuple[str, ...] = ()
    fault: Exception | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(judge_says=True, cosine=0.9)
        object.__setattr__(self, "asked", [])

    async def judge(self, request: JudgeRequest) -> Verdict:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        self.asked.append(request.candidate)  # type: ignore[attr-defined]
        right = {answer: right for _, _, answer, right in FIXED_VERDICTS}.get(request.candidate, True)
        return Verdict(correct=right != (request.candidate in self.wrong))

    def open(self, needs: frozenset[str]) -> None: ...

    def uncached(self) -> Any:
        return self

    async def aclose(self) -> None: ...


@pytest.fixture(scope="module")
def composed() -> Any:
    return compose_config("medix_cpu")


@pytest.fixture
def config(composed: Any, tmp_path: Path) -> Any:
    copy = OmegaConf.create(OmegaConf.to_container(composed))
    copy.medix.run_dir = str(tmp_path)
    return copy


def batch(*responses: str, modality: str = "X_RAY", pad: int = 3) -> Any:
    """Trajectories of one session as veRL gives them: prompts padded left, responses padded right."""
    import numpy as np
    import torch
    from verl import DataProto

    prompt, longest = 4, max(map(len, responses)) + pad
    ids = torch.zeros((len(responses), longest), dtype=torch.long)
    mask = torch.ones((len(responses), prompt + longest), dtype=torch.long)
    for row, text in enumerate(responses):
        ids[row, : len(text)] = torch.tensor([ord(letter) for letter in text])
        mask[row, prompt + len(text) :] = 0
    info = {
        "index": 0, "sample_id": "s1", "question": "Diagnosis?", "modality": modality, "answer_kind": "open",
        "aliases": np.array([], dtype=object), "split": "train", "n_tokens": 9,
    }  # fmt: skip
    columns = {
        "reward_model": {"style": "rule", "ground_truth": "pneumonia"},
        "extra_info": info,
        "data_source": "test",
        "uid": "group-7",
        "session_id": 3,
        "global_steps": 5,
    }
    extra = {name: np.array([value] * len(responses), dtype=object) for name, value in columns.items()}
    tensors = {"prompts": torch.ones((len(responses), prompt)), "responses": ids, "attention_mask": mask}
    return DataProto.from_dict(tensors=tensors, non_tensors=extra)


def make_manager(config: Any, monkeypatch: pytest.MonkeyPatch, scorers: type = FakeService, **kwargs: Any) -> Any:
    """By veRL's own registry."""
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    import medix_verl.plugins.reward_manager  # noqa: F401

    monkeypatch.setattr("reward_fns.scorers.service.ScorerService", scorers)
    return get_reward_manager_cls("medix")(config, FakeTokenizer(), **kwargs)


async def test_a_right_response_is_paid_in_full_and_logged(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manager = make_manager(config, monkeypatch)
    result = await manager.run_single(batch("no form at all", RIGHT))  # of a session's trajectories the last
    assert result["reward_score"] == pytest.approx(1.0)
    assert all(isinstance(value, float) for value in result["reward_extra_info"].values())
    assert result["reward_extra_info"]["score"] == result["reward_score"]
    record = json.loads((tmp_path / "rollouts" / "scored.jsonl").read_text())
    wanted = {
        "step": 5,
        "split": "train",
        "group": "group-7",
        "session": 3,
        "sample_id": "s1",
        "reference": "pneumonia",
    }
    assert {key: record[key] for key in wanted} == wanted
    assert record["response"] == RIGHT  # neither prompt nor padding
    assert record["scores"] == result["reward_extra_info"]


async def test_every_response_has_the_same_keys(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make_manager(config, monkeypatch)
    texts = [RIGHT, "", "<X_RAY><thinking>t</thinking><answer>", RIGHT.replace("X_RAY", "MRI_SCAN")]
    found = [(await manager.run_single(batch(text)))["reward_extra_info"] for text in texts]
    found.append((await manager.run_single(batch(RIGHT, modality="")))["reward_extra_info"])
    assert len({tuple(row) for row in found}) == 1
    # The rest of the keys are totals, flags and latencies: the report draws none of them as a component.
    assert [key for key in found[0] if is_component(key)] == ["llm_accuracy", "embed_accuracy", "modality", "format"]
    assert found[-1]["modality"] == -1.0  # does not apply to a text-only question
    # 0.5175 + 0.3375 + 0.10 of 1: all but the tag.
    assert found[3]["score"] == pytest.approx(0.955)


def test_a_component_sees_the_images_and_the_rows_other_columns() -> None:
    from medix_verl.plugins.reward_manager import scoring_input_of

    item = batch(RIGHT)[-1]
    item.non_tensor_batch["extra_info"] |= {"extra": '{"patient": "p7"}'}
    image = {"type": "image", "bytes": b"png", "image": object()}
    item.non_tensor_batch["raw_prompt"] = [
        {"role": "system", "content": "text only"},
        {"role": "user", "content": [image, {"type": "text", "text": "Diagnosis?"}, {**image, "bytes": b"jpeg"}]},
    ]
    found = scoring_input_of(item, RIGHT)
    assert found.extra == {"patient": "p7"}
    assert found.images == (b"png", b"jpeg")
    assert scoring_input_of(batch(RIGHT)[-1], RIGHT).images == ()


async def test_a_scorer_that_gave_up_is_never_a_score_and_a_refused_response_is_set_aside(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(FakeService, "fault", ScorerError("There was no verdict for an hour.", "See to the judge."))
    with pytest.raises(ScorerError, match="no verdict for an hour"):
        await make_manager(config, monkeypatch).run_single(batch(RIGHT))
    monkeypatch.setattr(FakeService, "fault", RefusedSample("The judge refuses it: content filter.", "Look at it."))
    result = await make_manager(config, monkeypatch).run_single(batch(RIGHT))
    assert result["reward_extra_info"][REFUSED] == 1.0
    assert (tmp_path / "rollouts" / "scored.jsonl").read_text() == ""
    row = json.loads((tmp_path / "rollouts" / "refused.jsonl").read_text())
    assert (row["sample_id"], row["step"], row["session"]) == ("s1", 5, 3)
    assert "content filter" in row["reason"]


TWO_WRONG = ("spleen", "fracture")


@pytest.mark.parametrize(
    ("wrong", "judge_check", "stops"),
    [((), "stop", False), (TWO_WRONG[:1], "stop", False), (TWO_WRONG, "stop", True), (TWO_WRONG, "warn", False)],
    ids=["all right", "one wrong", "two wrong", "two wrong, and only a warning asked for"],
)
async def test_a_colocated_judge_is_asked_the_fixed_verdicts_once_before_it_pays(
    wrong: tuple[str, ...], judge_check: str, stops: bool, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeService, "wrong", wrong)
    config.reward.reward_model.enable = True
    OmegaConf.update(config, "medix.judge_check", judge_check, force_add=True)
    manager = make_manager(config, monkeypatch, reward_router_address="127.0.0.1:1")
    together = [manager.run_single(batch(RIGHT.replace("lung infection", answer))) for answer in ("a", "b", "c")]
    results = await asyncio.gather(*together, return_exceptions=True)
    assert manager.scorers.asked[:6] == [answer for _, _, answer, _ in FIXED_VERDICTS]
    assert [isinstance(result, ScorerError) for result in results] == [stops] * 3
    assert len(manager.scorers.asked) == 6 + (0 if stops else 3)
    if stops:
        assert "'spleen' for 'liver', 'fracture' for 'no fracture'" in str(results[0])


@pytest.mark.parametrize("without", ["a colocated judge", "a weight of the judge"])
async def test_other_judges_are_preflights_to_ask(without: str, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config.reward.reward_model.enable = without != "a colocated judge"
    if without == "a weight of the judge":
        for name in ("llm_accuracy", "embed_accuracy"):  # the second has the judge's veto
            config.medix.reward.components[name].weight = 0
    manager = make_manager(config, monkeypatch, reward_router_address="127.0.0.1:1")
    await manager.run_single(batch(RIGHT))
    assert not set(manager.scorers.asked) & {answer for _, _, answer, _ in FIXED_VERDICTS}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("medix.scorer.judge.prompt", "/none.txt", r"/none\.txt"),
        ("medix.judge_check", "stopp", r"medix\.judge_check"),
        ("reward.num_workers", 2, r"reward\.num_workers is 2"),
        ("medix.reward.components", {"formt": {"weight": 1}}, "format"),
    ],
)
def test_what_can_not_work_fails_at_the_start(
    key: str, value: Any, named: str, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reward_fns.scorers.service import ScorerService

    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(ConfigError, match=named):
        make_manager(config, monkeypatch, ScorerService)
