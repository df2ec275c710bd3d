"""Clinical flips under `strict`: none is paid by any component, and true equivalents keep their pay."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medix.response import format_response
from reward_fns import ScoringInput, build_composite
from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.clinical_rules.rule_judge import RuleJudge
from reward_fns.scorers.types import JudgeRequest, Similarity, Verdict


def table(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


PAIRS, HELD_OUT = table("clinical_pairs.csv"), table("held_out_pairs.csv")
"""`written` says whether a pair of the first was there from the start or came with a review of the rules."""
FLIPS = [pair for pair in PAIRS if pair["truth"] == "different"]
EQUIVALENTS = [pair for pair in PAIRS if pair["truth"] == "same"]


class FakeScorers:
    """The rules as judge (or a judge that says YES to all), and an embedder that finds all texts equally near."""

    def __init__(self, cosine: float, says_yes: bool = False) -> None:
        self.cosine, self.says_yes = cosine, says_yes

    async def judge(self, request: JudgeRequest) -> Verdict:
        return Verdict(self.says_yes or RuleJudge().same(request.reference, request.candidate))

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        return Similarity(self.cosine)


async def pay(pair: dict[str, str], scorers: FakeScorers, preset: str = "strict") -> tuple[float, float]:
    item = ScoringInput(format_response("X_RAY", "t", pair["candidate"]), pair["reference"], "What is seen?", "X_RAY")
    flat = (await build_composite({"preset": preset}, scorers).score(item)).flat()
    return flat["llm_accuracy"], flat["embed_accuracy"]


def test_the_table_is_large_and_wide_enough() -> None:
    assert len(PAIRS) >= 100
    assert len({pair["kind"] for pair in FLIPS}) >= 7
    assert len({pair["kind"] for pair in EQUIVALENTS}) >= 5


@pytest.mark.parametrize("pair", FLIPS, ids=lambda pair: f"{pair['kind']}: {pair['candidate']}")
async def test_no_flip_is_paid_though_the_embedder_is_sure(pair: dict[str, str]) -> None:
    assert await pay(pair, FakeScorers(cosine=1.0)) == (0.0, 0.0)


async def test_the_guard_alone_stops_nearly_all_of_them_from_a_judge_that_says_yes_to_everything() -> None:
    paid = [pair for pair in FLIPS if await pay(pair, FakeScorers(1.0, says_yes=True)) != (0.0, 0.0)]
    assert len([pair for pair in paid if pair["written"] == "first"]) <= 0.02 * len(FLIPS)
    # What is left to the judge by design: other dimensions, several numbers, an order of words, a part left out.
    assert len(paid) <= 0.08 * len(FLIPS)


async def test_paper_pays_them() -> None:
    # The released semantics, kept for reproduction: the embedder's word is enough (but for answers with a colon).
    flips = [pair for pair in FLIPS if ":" not in pair["candidate"]]
    paid = [pair for pair in flips if (await pay(pair, FakeScorers(1.0), "paper"))[1] == 1.0]
    assert len(paid) == len(flips)


async def test_equivalents_that_the_judge_accepts_keep_their_pay() -> None:
    accepted = [pair for pair in EQUIVALENTS if RuleJudge().same(pair["reference"], pair["candidate"])]
    # Seven of the review's rows need a language model: conversions that round, and what is said by denying the rest.
    assert len(accepted) >= 0.9 * len(EQUIVALENTS)
    paid = [await pay(pair, FakeScorers(cosine=0.2)) for pair in accepted]
    assert paid.count((1.0, 1.0)) >= 0.8 * len(accepted)


@pytest.mark.parametrize("pair", EQUIVALENTS, ids=lambda pair: f"{pair['reference']}: {pair['candidate']}")
async def test_the_guard_is_silent_on_every_equivalent_so_that_the_judge_is_asked(pair: dict[str, str]) -> None:
    assert await pay(pair, FakeScorers(1.0, says_yes=True)) == (1.0, 1.0)
    assert await pay(
        {**pair, "reference": pair["candidate"], "candidate": pair["reference"]}, FakeScorers(1.0, True)
    ) == (
        1.0,
        1.0,
    )


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("5 cm", "5"), ("1 inch", "2.5 cm"), ("101 °F", "38.3 °C"), ("1 year", "365 days"), ("10 mg/mL", "1 %"),
        ("0.5", "1/2"), ("1.5 cm", "1.5 cm (15 mm)"), ("< 5 mm", "3 mm"), ("2 lesions of 5 mm", "2 lesions, 0.5 cm"),
        ("unilateral", "left"), ("metastatic lung cancer", "primary lung cancer with metastases"),
        ("COVID-19", "COVID 19"), ("no", "negative"), ("yes", "positive"), ("no", "no, the heart is normal"),
        ("hypoglycemia", "hypoglycemia rather than hyperglycemia"), ("not elevated", "normal"),
        ("no", "No there is no fracture"),
    ],
)  # fmt: skip
def test_the_guard_leaves_to_the_judge_what_may_be_right(reference: str, answer: str) -> None:
    assert (find_contradiction(reference, answer), find_contradiction(answer, reference)) == (None, None)


def test_the_held_out_pairs_are_enough_and_in_no_other_table() -> None:
    assert len(HELD_OUT) >= 40
    known = {(pair["reference"], pair["candidate"]) for pair in PAIRS}
    assert [pair for pair in HELD_OUT if (pair["reference"], pair["candidate"]) in known] == []
