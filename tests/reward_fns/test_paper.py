"""The preset `paper` against the released reward: every row of the edge-case table, and all 16 totals.

Weights: judge L 0.5175, embedder E 0.3375, modality M 0.045, form F 0.10.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from medix.errors import ScorerError
from reward_fns import AssumedScorers, ScoringInput, build_composite, reading
from reward_fns.scorers.types import JudgeRequest, Verdict
from reward_fns.scorers.verdict import parse_verdict

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
    ("reference without a tag that opens the response: M + F", form("x y", "x y>"), "x y", None, NOBODY, 0.145),
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


async def test_the_judge_sees_neither_question_nor_other_wordings_and_eyes_counts_as_yes() -> None:
    asked: list[JudgeRequest] = []

    class FakeEyes(AssumedScorers):
        async def judge(self, request: JudgeRequest) -> Verdict:
            asked.append(request)
            return Verdict(bool(parse_verdict("EYES", request.parse)))

    item = ScoringInput(form("lung infection"), "pneumonia", "secret question?", "X_RAY", ("lung infection",))
    score = await build_composite({"preset": "paper"}, FakeEyes(cosine=0.0)).score(item)
    assert score.total == pytest.approx(0.6625)  # another wording is no exact match: the judge was asked
    assert [(request.question, request.aliases) for request in asked] == [(None, ())]


async def test_a_reference_without_a_tag_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    reading._warn_of_reference_without_tag.cache_clear()
    for number in range(3):
        item = ScoringInput(form("x y"), "x y", sample_id=f"s{number}")
        await build_composite({"preset": "paper"}, NOBODY).score(item)
    assert [record.getMessage()[:11] for record in caplog.records] == ["A reference"]


def released_total(response: str, solution: str, reply: str, cosine: float) -> float:
    """The released semantics, from their description: patterns, order and arithmetic; no fault is ever raised."""
    text = re.sub(r"\s*([<>/])\s*", r"\1", response)
    before, has_thinking, after = text.partition("<thinking>")
    form = r"<thinking>.*?</thinking>\s*<answer>.*?</answer>"
    well_formed = bool(has_thinking) and re.fullmatch(form, (has_thinking + after).strip(), re.DOTALL) is not None
    modality = bool(has_thinking) and before.strip().upper() == f"{solution.split('>')[0]}>".upper()
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    answer = (found[1] if found else text).strip().strip(".")
    llm = embed = 0.0
    if ">" in solution and len(answer) > 1 and not any(sign in answer for sign in ("__", ":", "?")):
        exact = answer == solution.split(">", 1)[1].strip().strip(".")
        llm = float(exact or "YES" in reply.strip().upper())
        embed = float(exact or cosine >= 0.8)
    return 0.9 * (0.575 * llm + 0.375 * embed + 0.05 * modality) + 0.1 * well_formed


PIECES = (
    *("<thinking>", "</thinking>", "<answer>", "</answer>", "<X_RAY>", "<x_ray>", "<", ">", "/", " ", "\n", "\u2003"),
    *("a", "b c", "pneumonia", "Pneumonia", "2:1", "a__b", "why?", ".", "CT / MRI"),
)
ANSWERS = ("pneumonia", "Pneumonia", "pneumonia.", " left lung ", "A", "", "CT / MRI", "2:1", "x?", "5 < 7 mm", "edema")
SOLUTIONS = (
    "<X_RAY> pneumonia",
    "<X_RAY>pneumonia.",
    "<X_RAY> CT / MRI",
    "<CT_SCAN> edema",
    "<X_RAY> A",
    "<X_RAY> 5 < 7 mm",
)
ODD = (" <X_RAY> pneumonia", "pneumonia", "edema")
REPLIES = ("YES", "NO", "yes, it does", "EYES", "NO. YES", "maybe", "")


def generated(count: int) -> Iterator[tuple[str, str, str, float]]:
    """Response, solution as released, reply of the judge, cosine."""
    draw = random.Random(15)
    for number in range(count):
        if number % 2:
            response = "".join(draw.choices(PIECES, k=draw.randrange(14)))
        else:
            tag = draw.choice(("<X_RAY>", "<x_ray>", "<CT_SCAN>", "", "So: <X_RAY>"))
            blank = draw.choice(("", " ", "\n"))
            tail = draw.choice(("", "", "", " tail", "<answer>z</answer>"))
            response = f"{tag}{blank}<thinking>t</thinking>{blank}<answer>{draw.choice(ANSWERS)}</answer>{tail}"
        solution = draw.choice(ODD if draw.random() < 0.1 else SOLUTIONS)
        yield response, solution, draw.choice(REPLIES), draw.choice((-0.2, 0.79999, 0.8, 1.0))


def prepared(response: str, solution: str) -> ScoringInput:
    """The row as `medix prepare` splits it, without the column `solution`."""
    found = re.fullmatch(r"\s*<([A-Z_]+)>\s*(.*?)\s*", solution, re.DOTALL)
    return ScoringInput(response, found[2] if found else solution, "q", found[1] if found else None)


async def differences(count: int) -> dict[str, int]:
    """Kind of difference -> cases, of `count` cases in each of two forms of the row."""
    composite = build_composite({"preset": "paper"}, NO)
    found: Counter[str] = Counter()
    for response, solution, reply, cosine in generated(count):
        released = released_total(response, solution, reply, cosine)
        says = parse_verdict(reply, "substring")
        scorers = FakeUnread(cosine=cosine) if says is None else AssumedScorers(says, cosine)
        split = prepared(response, solution)
        whole = replace(split, extra={"solution": solution})
        for item, form in ((whole, "with the column `solution`"), (split, "split by `medix prepare`")):
            try:
                ours = (await composite.score(item, scorers)).total
            except ScorerError:
                found[f"{form}: the judge says neither YES nor NO: a fault here, 0 for it there"] += 1
                continue
            if abs(ours - released) > 1e-9:
                odd = "a blank before its tag" if solution[0] == " " else "another cause"
                found[f"{form}: the solution has {odd}: the tag is paid here, not there"] += 1
    return dict(found)


class FakeUnread(AssumedScorers):
    """A judge whose reply is neither word."""

    async def judge(self, request: JudgeRequest) -> Verdict:
        raise ScorerError("The judge says neither.", "Use another.")


async def test_of_a_thousand_cases_no_undocumented_kind_differs() -> None:
    assert not any("another cause" in kind for kind in await differences(1000))


@pytest.mark.slow
async def test_of_twenty_thousand_cases_only_the_documented_ones_differ_from_the_released_reward() -> None:
    found = await differences(20_000)
    rows = "\n".join(f"| {kind} | {count:,} |" for kind, count in sorted(found.items()))
    docs = (Path(__file__).parents[2] / "docs" / "reward.md").read_text()
    assert rows in docs, f"docs/reward.md is to hold these rows:\n{rows}"


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
