"""The preset `paper` against the released reward: every row of the edge-case table, and all 16 totals.

Weights: judge L 0.5175, embedder E 0.3375, modality M 0.045, form F 0.10.
"""

from __future__ import annotations

import re
import socket
import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medix.errors import ScorerError
from reward_fns import AssumedScorers, ScoringInput, build_composite, reading
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest, Verdict

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
    from reward_fns.scorers.verdict import parse_verdict

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
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        judge = {"urls": [f"http://127.0.0.1:{closed.getsockname()[1]}"], "retries": 0}
        service = ScorerService({"judge": judge, "hold_limit_s": 0.2, "embedder": {"kind": "none"}})
        config = {"preset": "paper", "components": {"embed_accuracy": None}}
        with pytest.raises(ScorerError):
            await build_composite(config, service).score(
                ScoringInput(form("lung infection"), "pneumonia", "q", "X_RAY")
            )
        await service.aclose()


async def test_other_wordings_earn_nothing_and_the_judge_does_not_see_them() -> None:
    asked: list[JudgeRequest] = []

    class FakeJudge(AssumedScorers):
        async def judge(self, request: JudgeRequest) -> Verdict:
            asked.append(request)
            return Verdict(False)

    item = ScoringInput(form("heart attack"), "myocardial infarction", "q", "X_RAY", ("heart attack",))
    assert (await build_composite({"preset": "paper"}, FakeJudge(cosine=0.0)).score(item)).total == pytest.approx(0.145)
    assert [request.aliases for request in asked] == [()]


async def test_a_reference_without_a_tag_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading._warn_of_reference_without_tag.cache_clear()
    for number in range(3):
        await build_composite({"preset": "paper"}, NOBODY).score(
            ScoringInput(form("x y"), "x y", sample_id=f"s{number}")
        )
    assert [record.getMessage()[:11] for record in caplog.records] == ["A reference"]


def released_reading(response: str) -> tuple[str, str, bool]:
    """The patterns of the released code: text, answer, whether well formed."""
    text = re.sub(r"\s*([<>/])\s*", r"\1", response)
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    _, tag, after = text.partition("<thinking>")
    form = r"<thinking>.*?</thinking>\s*<answer>.*?</answer>"
    well_formed = bool(tag) and re.fullmatch(form, (tag + after).strip(), re.DOTALL) is not None
    return text, found[1] if found else text, well_formed


PIECES = (
    "<thinking>",
    "</thinking>",
    "<answer>",
    "</answer>",
    "<X_RAY>",
    " ",
    "\n",
    "\u2003",
    "<",
    ">",
    "/",
    "a",
    "b c",
)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_the_linear_reading_agrees_with_the_released_patterns(response: str) -> None:
    text, answer, well_formed = released_reading(response)
    assert reading._without_blanks_at_signs(response) == text
    assert reading._paper_answer(text) == answer
    found = reading.read_paper(ScoringInput(response, "reference", "q", "X_RAY"))
    assert found.well_formed == well_formed


@pytest.mark.parametrize(
    "response",
    [" " * 65536 + "x", "<thinking>" + "\n" * 65536, "<answer>" * 65536, "<thinking>" + "</thinking><answer>" * 65536],
    ids=["blanks", "lines", "answers", "turns"],
)
def test_a_flood_is_read_in_linear_time(response: str) -> None:
    start = time.monotonic()
    reading.read_paper(ScoringInput(response, "reference", "q", "X_RAY"))
    assert time.monotonic() - start < 2  # the patterns take half a minute and more


@pytest.mark.parametrize(("llm", "embed", "modality", "well_formed"), list(product((0, 1), repeat=4)))
@pytest.mark.parametrize("preset", ["paper", "strict"])
async def test_the_sixteen_totals(preset: str, llm: int, embed: int, modality: int, well_formed: int) -> None:
    response = form("lobar consolidation", "<X_RAY>" if modality else "<CT_SCAN>") + ("" if well_formed else " tail")
    composite = build_composite({"preset": preset}, AssumedScorers(bool(llm), 0.9 if embed else 0.1))
    score = await composite.score(ScoringInput(response, "pneumonia", "q", "X_RAY"))
    paid_embed = embed and (llm or preset == "paper")  # under `strict` the judge's NO is a veto
    expected = 0.5175 * llm + 0.3375 * paid_embed + 0.045 * modality + 0.10 * well_formed
    assert score.total == pytest.approx(expected, abs=1e-9)
