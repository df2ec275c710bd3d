"""The reward manager on a real DataProto; judge and embedder are fakes that answer as told."""

from __future__ import annotations

import asyncio
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError, ScorerError
from medix_verl.preflight.scorers import FIXED_VERDICTS
from medix_verl.report.run_folder import is_component
from medix_verl.run_config import compose_config
from reward_fns import AssumedScorers
from reward_fns.composite import ANSWER_HASH, DISAGREE, JUDGE_FAULTS
from reward_fns.scorers.types import JudgeRequest, RefusedSample, Similarity, Verdict

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


class FakeOpening:
    """What the manager asks of the service beside scores."""

    judge_faults, at_once = 0, 4

    def open(self, needs: frozenset[str]) -> None: ...

    def uncached(self) -> Any:
        return self

    async def aclose(self) -> None: ...


class FakeScorers(FakeOpening, AssumedScorers):
    """Says YES and 0.9 to everything, in place of the scorer service; each verdict takes it two requests."""

    async def judge(self, request: JudgeRequest) -> Verdict:
        self.judge_faults += 1
        return await super().judge(request)

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(judge_says=True, cosine=0.9)


class FakeBrokenScorers(FakeOpening):
    """A judge that gave up."""

    def __init__(self, settings: dict[str, Any]) -> None:
        pass

    async def judge(self, request: JudgeRequest) -> Verdict:
        raise ScorerError("There was no verdict for an hour.", "See to the judge.")

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        return Similarity(0.9)


class FakeChatJudge(FakeOpening, AssumedScorers):
    """Right on the fixed verdicts but those whose answers are listed; counts what it is asked."""

    wrong: tuple[str, ...] = ()

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(judge_says=True, cosine=0.9)
        self.asked: list[str] = []

    async def judge(self, request: JudgeRequest) -> Verdict:
        await asyncio.sleep(0)
        self.asked.append(request.candidate)
        right = {answer: right for _, _, answer, right in FIXED_VERDICTS}.get(request.candidate, True)
        return Verdict(correct=right != (request.candidate in self.wrong))


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


def make_manager(config: Any, monkeypatch: pytest.MonkeyPatch, scorers: type = FakeScorers, **kwargs: Any) -> Any:
    from medix_verl.plugins.reward_manager import MedixRewardManager

    monkeypatch.setattr("reward_fns.scorers.service.ScorerService", scorers)
    return MedixRewardManager(config, FakeTokenizer(), **kwargs)


async def test_a_right_response_is_paid_in_full_and_logged(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manager = make_manager(config, monkeypatch)
    result = await manager.run_single(batch(RIGHT))
    assert result["reward_score"] == pytest.approx(1.0)
    assert all(isinstance(value, float) for value in result["reward_extra_info"].values())
    assert result["reward_extra_info"]["score"] == result["reward_score"]
    (line,) = (tmp_path / "rollouts" / "scored.jsonl").read_text().splitlines()
    record = json.loads(line)
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


async def test_a_component_sees_the_images_and_the_rows_other_columns(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medix_verl.plugins.reward_manager import scoring_input_of

    item = batch(RIGHT)[-1]
    item.non_tensor_batch["extra_info"] |= {"patient": "p7"}
    image = {"type": "image", "bytes": b"png", "image": object()}
    item.non_tensor_batch["raw_prompt"] = [
        {"role": "system", "content": "text only"},
        {"role": "user", "content": [image, {"type": "text", "text": "Diagnosis?"}, {**image, "bytes": b"jpeg"}]},
    ]
    found = scoring_input_of(item, RIGHT)
    assert found.extra == {"patient": "p7"}
    assert found.images == (b"png", b"jpeg")
    assert scoring_input_of(batch(RIGHT)[-1], RIGHT).images == ()


async def test_the_last_trajectory_of_a_session_is_scored(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make_manager(config, monkeypatch)
    result = await manager.run_single(batch(RIGHT, "no form at all"))
    assert result["reward_score"] == 0.0


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


async def test_wordings_that_differ_in_case_only_count_as_one_answer(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager(config, monkeypatch)
    texts = [RIGHT, RIGHT.replace("lung infection", "Lung Infection "), RIGHT.replace("lung infection", "effusion")]
    texts += ["no form", "no form either"]
    hashes = [(await manager.run_single(batch(text)))["reward_extra_info"][ANSWER_HASH] for text in texts]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[0] == zlib.crc32(b"lung infection")
    assert hashes[3] != hashes[4]  # two responses without an answer are no repetition of each other


async def test_failed_requests_are_told_once(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make_manager(config, monkeypatch)
    texts = [RIGHT, RIGHT.replace("lung infection", "pneumonia"), RIGHT]  # the second needs no judge: it is exact
    assert [(await manager.run_single(batch(text)))["reward_extra_info"][JUDGE_FAULTS] for text in texts] == [1, 0, 1]


@pytest.mark.parametrize(("cosine", "differs"), [(0.9, 0.0), (0.1, 1.0)])
async def test_judge_and_embedder_that_differ_are_told(
    cosine: float, differs: float, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scorers(FakeOpening, AssumedScorers):
        def __init__(self, settings: dict[str, Any]) -> None:
            super().__init__(judge_says=True, cosine=cosine)

    manager = make_manager(config, monkeypatch, Scorers)
    row = (await manager.run_single(batch(RIGHT.replace("lung infection", "something else"))))["reward_extra_info"]
    assert row[DISAGREE] == differs
    exact = (await manager.run_single(batch(RIGHT.replace("lung infection", "pneumonia"))))["reward_extra_info"]
    assert exact[DISAGREE] == -1  # nobody was asked


def test_what_the_scorers_lack_fails_at_the_start(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from reward_fns.scorers.service import ScorerService

    OmegaConf.update(config, "medix.scorer.judge.prompt", "/none.txt", force_add=True)
    with pytest.raises(ConfigError, match=r"/none\.txt"):
        make_manager(config, monkeypatch, ScorerService)


async def test_a_scorer_that_gave_up_is_never_a_score(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manager = make_manager(config, monkeypatch, FakeBrokenScorers)
    with pytest.raises(ScorerError, match="no verdict for an hour"):
        await manager.run_single(batch(RIGHT))
    assert (tmp_path / "rollouts" / "scored.jsonl").read_text() == ""


class FakeRefusingScorers(FakeBrokenScorers):
    """A judge with a content filter."""

    async def judge(self, request: JudgeRequest) -> Verdict:
        raise RefusedSample("The judge refuses the sample: content filter.", "Look at it.")


async def test_a_response_that_the_judge_refuses_is_marked_and_set_aside(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manager = make_manager(config, monkeypatch, FakeRefusingScorers)
    result = await manager.run_single(batch(RIGHT))
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
    wrong: tuple[str, ...], judge_check: str, stops: bool, config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(FakeChatJudge, "wrong", wrong)
    config.reward.reward_model.enable = True
    OmegaConf.update(config, "medix.judge_check", judge_check, force_add=True)
    manager = make_manager(config, monkeypatch, FakeChatJudge, reward_router_address="127.0.0.1:1")
    together = [manager.run_single(batch(RIGHT.replace("lung infection", answer))) for answer in ("a", "b", "c")]
    results = await asyncio.gather(*together, return_exceptions=True)
    fixed = [answer for _, _, answer, _ in FIXED_VERDICTS]
    assert manager.scorers.asked[:6] == fixed
    assert [isinstance(result, ScorerError) for result in results] == [stops] * 3
    assert len(manager.scorers.asked) == 6 + (0 if stops else 3)
    if stops:
        assert "'spleen' for 'liver', 'fracture' for 'no fracture'" in str(results[0])
        assert (tmp_path / "rollouts" / "scored.jsonl").read_text() == ""


@pytest.mark.parametrize("without", ["a colocated judge", "a weight of the judge"])
async def test_other_judges_are_preflights_to_ask(without: str, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config.reward.reward_model.enable = without != "a colocated judge"
    if without == "a weight of the judge":
        for name in ("llm_accuracy", "embed_accuracy"):  # the second has the judge's veto
            config.medix.reward.components[name].weight = 0
    manager = make_manager(config, monkeypatch, FakeChatJudge, reward_router_address="127.0.0.1:1")
    await manager.run_single(batch(RIGHT))
    assert not set(manager.scorers.asked) & {answer for _, _, answer, _ in FIXED_VERDICTS}


def test_a_misspelt_judge_check_fails_at_the_start(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    OmegaConf.update(config, "medix.judge_check", "stopp", force_add=True)
    with pytest.raises(ConfigError, match=r"medix\.judge_check"):
        make_manager(config, monkeypatch)


def test_more_than_one_reward_worker_is_refused(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config.reward.num_workers = 2
    with pytest.raises(ConfigError, match=r"reward\.num_workers is 2"):
        make_manager(config, monkeypatch)


def test_a_misspelt_component_fails_at_the_start(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    OmegaConf.update(config, "medix.reward.components", {"formt": {"weight": 1}}, force_add=True)
    with pytest.raises(ConfigError, match="format"):
        make_manager(config, monkeypatch)


def test_verl_finds_the_manager_by_its_name() -> None:
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    from medix_verl.plugins.reward_manager import MedixRewardManager

    assert get_reward_manager_cls("medix") is MedixRewardManager
