"""The preset `paper` against the released reward: every row of the edge-case table, and all 16 totals.

Weights: judge L 0.5175, embedder E 0.3375, modality M 0.045, form F 0.10.
"""

from __future__ import annotations

from itertools import product

import pytest

from medix.errors import ConfigError
from reward_fns import AssumedScorers, ScoringInput, build_composite

NO = AssumedScorers(judge_says=False, cosine=0.0)
YES = AssumedScorers(judge_says=True, cosine=0.0)
NOBODY = AssumedScorers()
"""Raises when asked: shows that no call is made."""


def form(answer: str, tag: str = "<X_RAY>", thinking: str = "t") -> str:
    return f"{tag}<thinking>{thinking}</thinking><answer>{answer}</answer>"


# name, response, reference, modality (None: the reference is glued as released), scorers, expected total
CASES = [
    ("correct and well formed, without a call", form("pneumonia"), "pneumonia", "X_RAY", NOBODY, 1.0),
    ("one letter is rejected: M + F", form("A"), "A", "X_RAY", NOBODY, 0.145),
    ("one letter is rejected, glued reference", form("A"), "<X_RAY> A", None, NOBODY, 0.145),
    ("one digit is rejected", form("3"), "3", "X_RAY", NOBODY, 0.145),
    ("a colon is rejected", form("ratio 2:1"), "ratio 2:1", "X_RAY", NOBODY, 0.145),
    ("a question mark is rejected", form("pneumonia?"), "pneumonia?", "X_RAY", NOBODY, 0.145),
    ("a double underscore is rejected", form("a__b"), "a__b", "X_RAY", NOBODY, 0.145),
    ("an empty answer is rejected", form(""), "pneumonia", "X_RAY", NOBODY, 0.145),
    ("normalised on one side only, so judged: no", form("CT / MRI"), "CT / MRI", "X_RAY", NO, 0.145),
    ("normalised on one side only, so judged: yes", form("CT / MRI"), "CT / MRI", "X_RAY", YES, 0.6625),
    ("reference without a tag: F only", form("pneumonia"), "pneumonia", None, NOBODY, 0.1),
    ("reference with a leading space: M lost", form("pneumonia"), " <X_RAY> pneumonia", None, NOBODY, 0.955),
    ("bare answer without any tag: L + E", "pneumonia", "pneumonia", "X_RAY", NOBODY, 0.855),
    ("unclosed reasoning is judged whole", "<X_RAY><thinking>pneumonia", "pneumonia", "X_RAY", YES, 0.5175 + 0.045),
    ("the first answer wins, inside the thinking",
     "<X_RAY><thinking>so <answer>pneumonia</answer> it is</thinking><answer>junk</answer>",
     "pneumonia", "X_RAY", NOBODY, 1.0),
    ("trailing text with a second answer keeps F", form("pneumonia") + " trailing <answer>z</answer>",
     "pneumonia", "X_RAY", NOBODY, 1.0),
    ("trailing text alone loses F", form("pneumonia") + " trailing", "pneumonia", "X_RAY", NOBODY, 0.9),
    ("an empty thinking block keeps F", form("pneumonia", thinking=""), "pneumonia", "X_RAY", NOBODY, 1.0),
    ("a native think block before the tag loses M", "reasoning</think>" + form("pneumonia"),
     "pneumonia", "X_RAY", NOBODY, 0.955),
    ("a wrong tag loses M", form("pneumonia", "<CT_SCAN>"), "pneumonia", "X_RAY", NOBODY, 0.955),
    ("the tag's case does not matter", form("pneumonia", "<x_ray>"), "pneumonia", "X_RAY", NOBODY, 1.0),
    ("equality is of case", form("Pneumonia"), "pneumonia", "X_RAY", NO, 0.145),
    ("full stops at the ends do not count", form("pneumonia."), "pneumonia", "X_RAY", NOBODY, 1.0),
    ("cosine at the threshold pays E", form("other"), "pneumonia", "X_RAY", AssumedScorers(False, 0.8), 0.4825),
    ("cosine below the threshold pays nothing", form("other"), "pneumonia", "X_RAY",
     AssumedScorers(False, 0.7999), 0.145),
    ("a flip that the embedder finds near is paid", form("right lung"), "left lung", "X_RAY",
     AssumedScorers(False, 0.95), 0.4825),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "response", "answer", "modality", "scorers", "total"), CASES, ids=[c[0] for c in CASES]
)
async def test_case(
    name: str, response: str, answer: str, modality: str | None, scorers: AssumedScorers, total: float
) -> None:
    composite = build_composite({"preset": "paper"}, scorers)
    score = await composite.score(ScoringInput(response, answer, "question?", modality))
    assert score.total == pytest.approx(total, abs=1e-9)


async def test_the_judge_is_not_shown_the_question_and_eyes_counts_as_yes() -> None:
    from medix.scorer.types import JudgeRequest, Verdict
    from medix.scorer.verdict import parse_verdict

    asked: list[JudgeRequest] = []

    class FakeEyes(AssumedScorers):
        async def judge(self, request: JudgeRequest) -> Verdict:
            asked.append(request)
            return Verdict(bool(parse_verdict("EYES", request.parse)))

    composite = build_composite({"preset": "paper"}, FakeEyes(cosine=0.0))
    score = await composite.score(ScoringInput(form("lung infection"), "pneumonia", "secret question?", "X_RAY"))
    assert score.total == pytest.approx(0.6625)
    assert asked[0].question is None


async def test_a_judge_that_is_down_is_raised_where_the_released_code_scored_0145() -> None:
    # The one case in which `paper` is not the released reward: an outage is nobody's wrong answer.
    composite = build_composite({"preset": "paper"}, NOBODY)
    with pytest.raises(ConfigError):
        await composite.score(ScoringInput(form("lung infection"), "pneumonia", "q", "X_RAY"))


@pytest.mark.parametrize(("llm", "embed", "modality", "well_formed"), list(product((0, 1), repeat=4)))
@pytest.mark.parametrize("preset", ["paper", "strict"])
async def test_the_sixteen_totals(preset: str, llm: int, embed: int, modality: int, well_formed: int) -> None:
    response = form("lobar consolidation", "<X_RAY>" if modality else "<CT_SCAN>") + ("" if well_formed else " tail")
    composite = build_composite({"preset": preset}, AssumedScorers(bool(llm), 0.9 if embed else 0.1))
    score = await composite.score(ScoringInput(response, "pneumonia", "q", "X_RAY"))
    paid_embed = embed and (llm or preset == "paper")  # under `strict` the judge's NO is a veto
    expected = 0.5175 * llm + 0.3375 * paid_embed + 0.045 * modality + 0.10 * well_formed
    assert score.total == pytest.approx(expected, abs=1e-9)
