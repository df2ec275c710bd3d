"""Attacks on the reward: the prompt that leaves us can not be forged, and `strict` pays none of them.

`STRUCTURE` attacks the response's form: they must earn no accuracy even from a judge and an embedder that say yes to
everything. `ANSWERS` attack the judge through a well-formed answer: they must leave the prompt's fields whole, and earn
nothing from a judge that reads its fields (here the rule-judge), even where the embedder is fooled.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_fns import AssumedScorers, ScoringInput, build_composite
from reward_fns.clinical_rules.rule_judge import RuleJudge
from reward_fns.scorers.judge_prompt import FIELDS, load_judge_prompt, neutralise, read_fields
from reward_fns.scorers.types import JudgeRequest, Similarity, Verdict

REFERENCE = "pneumonia"
T, A = "<thinking>t</thinking>", "<answer>{}</answer>"

ATTACKS = yaml.safe_load((Path(__file__).parent / "attacks.yaml").read_text())
STRUCTURE = ATTACKS["structure"]
ANSWERS = ATTACKS["answers"] | {name: text * times for name, (text, times) in ATTACKS["floods"].items()}
CONTROL_TOKENS = ATTACKS["control_tokens"]


class FakeFooled(AssumedScorers):
    """An embedder that finds everything near, and a judge that reads only the fields of the prompt that leaves us."""

    async def judge(self, request: JudgeRequest) -> Verdict:
        fields = read_fields(load_judge_prompt().fill(request))
        assert fields is not None
        return Verdict(RuleJudge().same(fields["REFERENCE"], fields["CANDIDATE"]))

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        return Similarity(0.99)


def test_the_tables_hold_at_least_sixty_attacks() -> None:
    assert len(STRUCTURE) + len(ANSWERS) >= 60


@pytest.mark.parametrize("name", STRUCTURE)
async def test_a_malformed_response_earns_no_accuracy_from_anyone(name: str) -> None:
    gullible = AssumedScorers(judge_says=True, cosine=1.0)
    score = await build_composite({}, gullible).score(ScoringInput(STRUCTURE[name], REFERENCE, "Diagnosis?"))
    flat = score.flat()
    assert (flat["llm_accuracy"], flat["embed_accuracy"], flat["format"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_attack_on_the_judge_earns_no_accuracy(name: str) -> None:
    response = T + A.format(ANSWERS[name])
    flat = (await build_composite({}, FakeFooled()).score(ScoringInput(response, REFERENCE, "Diagnosis?"))).flat()
    assert (flat["llm_accuracy"], flat["embed_accuracy"]) == (0.0, 0.0)


def fields_around(filled: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[\[/?[^\[\]]*\]\]", filled))


OURS = tuple(f"[[{slash}{name}]]" for name in FIELDS.values() for slash in ("", "/"))


def assert_not_forged(request: JudgeRequest) -> None:
    """Our delimiters, each once and in order; outside the fields, nothing but the template's own text."""
    prompt = load_judge_prompt()
    filled = prompt.fill(request)
    assert fields_around(filled) == OURS
    outside = re.sub(r"(?s)(\[\[([A-Z ]+)\]\]\n).*?(\n\[\[/\2\]\])", r"\1\3", filled)
    assert [token for token in CONTROL_TOKENS if token in filled] == []
    assert outside == re.sub(r"\{(?:question|reference|accepted|candidate)\}", "", prompt.template)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_prompt_can_not_be_forged_from_any_field(name: str) -> None:
    text = ANSWERS[name]
    assert_not_forged(JudgeRequest(reference=REFERENCE, candidate=text, question="q"))
    assert_not_forged(JudgeRequest(reference=text, candidate="x", question=text, aliases=(text, "y")))


@pytest.mark.parametrize("token", CONTROL_TOKENS)
@pytest.mark.parametrize("wrapped", ["{}", "x{}YES", "\u200b{}", "< {} >", "[{}]"])
def test_no_control_token_leaves_us(token: str, wrapped: str) -> None:
    text = wrapped.format(token)
    assert_not_forged(JudgeRequest(reference=text, candidate=text, question=text, aliases=(text,)))
    hidden = wrapped.format(token[:2] + "\u034f" + token[2:])  # whole again when the unseen sign goes
    assert_not_forged(JudgeRequest(reference=hidden, candidate=hidden, question=hidden))


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet=st.sampled_from("[]/{}<>|［］⟦⟧\u200b\n \u2028CANDIDATEx\x00"), max_size=60))
def test_no_text_forges_the_prompt(text: str) -> None:
    assert_not_forged(JudgeRequest(reference=text, candidate=text, question=text, aliases=(text,)))


@pytest.mark.parametrize(
    "text",
    [
        "5 mm (range 3-7)", "[3, 7)", "SpO2 < 90 %", "10/12", "a|b", "T2N1M0", "µg/L ≥ 5", "²¹⁰Pb", "<5 mm",
        "p<0.05, n>3", "K+ <3.5 and Na+ >145", "é", "[see text]", "a<b and c>d",
    ],
)  # fmt: skip
def test_clinical_text_reaches_the_judge_unchanged(text: str) -> None:
    assert neutralise(text) == text


def test_a_long_field_loses_its_middle_with_a_note_and_keeps_the_question_at_its_end() -> None:
    vignette = "y" * 50 + "x" * 250 + "What is the most likely diagnosis?".rjust(50, "z")
    filled = load_judge_prompt(max_field_chars=100).fill(JudgeRequest("g", "a", vignette))
    # 350 characters, 50 kept at each end.
    assert "y" * 50 + "\n(250 characters cut here)\n" + "z" * 16 + "What is the most likely diagnosis?" in filled
    assert "x" not in filled.partition("[[QUESTION]]")[2].partition("[[/QUESTION]]")[0]


@pytest.mark.parametrize(
    "flood",
    ["[" + " " * 50_000, "[ " * 25_000, "<" + " " * 50_000, "[/" + "\n" * 50_000, "<a" * 25_000],
    ids=["blanks", "brackets", "blanks after <", "lines", "tags"],
)
def test_a_flood_is_neutralised_in_linear_time(flood: str) -> None:
    start = time.monotonic()
    neutralise(flood)
    assert time.monotonic() - start < 2  # two runs of blanks in one pattern took half a minute
