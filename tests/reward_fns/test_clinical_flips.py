"""Clinical flips under `strict`: none is paid by any component, and true equivalents keep their pay."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medix.response import format_response
from reward_fns import ScoringInput, build_composite
from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.clinical_rules.rule_judge import RuleJudge, read_folded, states_the_same
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
    turned = {**pair, "reference": pair["candidate"], "candidate": pair["reference"]}
    for either in (pair, turned):
        assert await pay(either, FakeScorers(1.0, says_yes=True)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        ("5 cm", "5"), ("1 inch", "2.5 cm"), ("101 °F", "38.3 °C"), ("1 year", "365 days"), ("10 mg/mL", "1 %"),
        ("0.5", "1/2"), ("1.5 cm", "1.5 cm (15 mm)"), ("< 5 mm", "3 mm"), ("2 lesions of 5 mm", "2 lesions, 0.5 cm"),
        ("unilateral", "left"), ("metastatic lung cancer", "primary lung cancer with metastases"),
        ("COVID-19", "COVID 19"), ("no", "negative"), ("yes", "positive"), ("no", "no, the heart is normal"),
        ("hypoglycemia", "hypoglycemia rather than hyperglycemia"), ("not elevated", "normal"),
        ("no", "No there is no fracture"),
        # Compound number words, fractions, names with digits, and the four cases that stood here as known faults.
        ("72 hours", "seventy-two hours"), ("3 days", "seventy-two hours"), ("1.5 tablets", "one and a half tablets"),
        ("2/3 of patients", "two thirds of patients"), ("50 %", "half"), ("10 %", "0.1"), ("50 %", "one half"),
        ("type 2 diabetes", "T2DM"), ("diabetes mellitus type 2", "T2DM"), ("COVID-19", "SARS-CoV-2"),
        ("HER2 negative", "negative for HER2"), ("left effusion", "heart not enlarged, left effusion"),
        ("37 °C", "98.6 F"), ("-5", "minus 5"), ("left lung", "the right lung is not affected, the left is"),
        ("right lung", "the right lung is not affected, the left is"), ("IL-6", "interleukin 6"), ("5 mV", "5 MV"),
        ("seizures", "absence seizures"), ("malignant adenoma", "adenocarcinoma"), ("type 2", "type 2b"), ("<5", ">3"),
    ],
)  # fmt: skip
def test_the_guard_leaves_to_the_judge_what_may_be_right(reference: str, candidate: str) -> None:
    assert (find_contradiction(reference, candidate), find_contradiction(candidate, reference)) == (None, None)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        ("72 hours", "seventy-one hours"), ("1.5 tablets", "two and a half tablets"), ("type 1 diabetes", "T2DM"),
        ("<5 mm", ">5 mm"), ("10 %", "20 %"), ("140/90", "140/80"), ("LLL pneumonia", "right lower lobe pneumonia"),
        ("stage two", "stage III"), ("HER2 negative", "positive for HER2"),
    ],
)  # fmt: skip
def test_the_guard_speaks_where_both_sides_were_read(reference: str, candidate: str) -> None:
    assert find_contradiction(reference, candidate)
    assert find_contradiction(candidate, reference)


SPELLINGS: dict[str, list[list[str]]] = {
    # Kind of part -> its values -> ways to write the value, known to the rules and not.
    "side": [["left", "Left", "left-sided", "lt", "on the left", "links", "sinister", "gauche", "左"],
             ["right", "RIGHT", "right-sided", "rt", "on the right", "rechts", "dexter", "droite", "右"]],
    "denial": [["", "definite", "present"], ["no", "absent", "without", "no evidence of", "kein", "не", "¬"]],
    "degree": [["mild", "slight", "leicht", "grade I", "+"], ["severe", "marked", "schwer", "grade III", "+++"]],
    "number": [["72", "seventy-two", "seventy two", "72.0", "LXXII", "٧٢", "6 dozen", "1/2 of 144", "zweiundsiebzig"],
               ["1.5", "1,5", "one and a half", "1½", "3/2", "three halves", "anderthalb", "1.50", "150 %"]],
    "unit": [["mm", "MM", "millimeter", "millimetres", "㎜"], ["hours", "h", "hrs", "Stunden"], ["%", "percent"]],
    "stage": [["stage II", "stage 2", "stage two", "Stadium II", "stage Ⅱ"], ["type 2", "type II", "typ zwei", "T2"]],
    "finding": [["myocardial infarction", "heart attack", "MI", "Infarkt"], ["tumour", "tumor", "neoplasm", "Tumoren"],
                ["COVID-19", "SARS-CoV-2", "covid"], ["type 2 diabetes", "T2DM", "diabetes mellitus type 2"],
                ["hypokalemia", "hypokalaemia", "low potassium"], ["HER2", "ERBB2", "her-2/neu"]],
}  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_phrase_and_the_same_phrase_with_any_part_spelled_another_way_is_never_a_contradiction(
    data: st.DataObject,
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=1, max_size=4, unique=True))
    left, right = [], []
    for kind in kinds:
        value = data.draw(st.sampled_from(SPELLINGS[kind]))
        left.append(data.draw(st.sampled_from(value)))
        right.append(data.draw(st.sampled_from(value)))
    assert find_contradiction(" ".join(left), " ".join(right)) is None


TEXTS = [pair[side] for pair in PAIRS for side in ("reference", "candidate")]
PHRASES = [text for text in TEXTS if (said := read_folded(text)) and not said.reply]
"""`no`, `no, not` and `not present` are one reply."""
STRANGE = ["xylophon", "не", "无", "↑", "↓", "±", "Q7", "?", "≈", "IIX", "17th-ish", "ungefähr", "♂"]


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(FLIPS), st.sampled_from(STRANGE), st.data())
def test_a_word_or_sign_that_no_list_knows_makes_the_guard_silent(
    pair: dict[str, str], strange: str, data: st.DataObject
) -> None:
    words = pair["candidate"].split()
    words.insert(data.draw(st.integers(0, len(words))), strange)
    assert find_contradiction(pair["reference"], " ".join(words)) is None


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(PHRASES), st.data())
def test_rules_never_prove_a_phrase_equal_to_itself_with_a_sign_digit_or_word_more_or_less(
    phrase: str, data: st.DataObject
) -> None:
    words = phrase.split()
    place = data.draw(st.integers(0, len(words)))
    added = data.draw(st.sampled_from([*STRANGE, "not", "no", "left", "5", "+", "*", "-", "mild", "tumor", "7 mm"]))
    other = " ".join([*words[:place], added, *words[place:]])
    if added != "-":  # between words it is a pause
        assert not states_the_same(phrase, other), other
    digit = data.draw(st.sampled_from("3579"))
    at = data.draw(st.integers(0, len(phrase)))
    assert not states_the_same(phrase, phrase[:at] + digit + phrase[at:])


@pytest.mark.parametrize("end", ["and then left", "hypokalemia", "no", "grade 4"])
@pytest.mark.parametrize("pair", FLIPS[::10], ids=lambda pair: pair["kind"])
def test_a_text_that_is_longer_than_what_is_read_makes_the_guard_silent(pair: dict[str, str], end: str) -> None:
    """The guard read the first 400 tokens and took them for the whole: 500 small words here, and more after them."""
    long = f"{pair['candidate']} {'the ' * 500}{end}"
    assert find_contradiction(pair["reference"], pair["candidate"]) or pair["written"] != "first"
    assert find_contradiction(pair["reference"], long) is None
    assert find_contradiction(long, pair["reference"]) is None
