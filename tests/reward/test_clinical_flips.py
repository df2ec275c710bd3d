"""Clinical flips under `strict`: none is paid by any component, and true equivalents keep their pay."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medix.response import format_response
from medix.rule_judge.verdict import RuleJudge
from medix.scorer.types import JudgeRequest, Similarity, Verdict
from reward_fns import ScoringInput, build_composite

with (Path(__file__).parent / "clinical_pairs.csv").open(encoding="utf-8") as _file:
    PAIRS = list(csv.DictReader(_file))
FLIPS = [pair for pair in PAIRS if pair["truth"] == "different"]
EQUIVALENTS = [pair for pair in PAIRS if pair["truth"] == "same"]


class FakeScorers:
    """The rules as judge (or a judge that says YES to all), and an embedder that finds all texts equally near."""

    def __init__(self, cosine: float, says_yes: bool = False) -> None:
        self.cosine, self.says_yes = cosine, says_yes

    async def judge(self, request: JudgeRequest) -> Verdict:
        return Verdict(self.says_yes or RuleJudge().same(request.gold, request.answer))

    async def similarity(self, gold: str, answer: str) -> Similarity:
        return Similarity(self.cosine)


async def pay(pair: dict[str, str], scorers: FakeScorers, preset: str = "strict") -> tuple[float, float]:
    item = ScoringInput(format_response("X_RAY", "t", pair["answer"]), pair["gold"], "What is seen?", "X_RAY")
    flat = (await build_composite({"preset": preset}, scorers).score(item)).flat()
    return flat["llm_accuracy"], flat["embed_accuracy"]


def test_the_table_is_large_and_wide_enough() -> None:
    assert len(PAIRS) >= 100
    assert len({pair["kind"] for pair in FLIPS}) >= 7
    assert len({pair["kind"] for pair in EQUIVALENTS}) >= 5


@pytest.mark.parametrize("pair", FLIPS, ids=lambda pair: f"{pair['kind']}: {pair['answer']}")
async def test_no_flip_is_paid_though_the_embedder_is_sure(pair: dict[str, str]) -> None:
    assert await pay(pair, FakeScorers(cosine=1.0)) == (0.0, 0.0)


async def test_the_guard_alone_stops_nearly_all_of_them_from_a_judge_that_says_yes_to_everything() -> None:
    paid = [pair for pair in FLIPS if await pay(pair, FakeScorers(1.0, says_yes=True)) != (0.0, 0.0)]
    assert len(paid) <= 0.02 * len(FLIPS)


async def test_paper_pays_them() -> None:
    # The released semantics, kept for reproduction: the embedder's word is enough (but for answers of one sign).
    paid = [pair for pair in FLIPS if (await pay(pair, FakeScorers(1.0), "paper"))[1] == 1.0]
    assert len(paid) == len(FLIPS)


async def test_equivalents_that_the_judge_accepts_keep_their_pay() -> None:
    accepted = [pair for pair in EQUIVALENTS if RuleJudge().same(pair["gold"], pair["answer"])]
    assert len(accepted) >= 0.9 * len(EQUIVALENTS)
    paid = [await pay(pair, FakeScorers(cosine=0.2)) for pair in accepted]
    assert paid.count((1.0, 1.0)) >= 0.8 * len(accepted)
