"""The response parser: a table of faults, and properties over arbitrary text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix.modality import MODALITIES
from medix.response import AMBIGUOUS_PROBLEMS, format_response, parse_response

GOOD = "<CT_SCAN><thinking>t</thinking><answer>a</answer>"

CASES: dict[str, tuple[str, tuple[str, ...], str | None, str | None]] = {
    # name: (response, problems, answer, scorable answer)
    "well formed": (GOOD, (), "a", "a"),
    "white space between": ("\n <CT_SCAN> \n<thinking>t</thinking>\n\n<answer> a \n</answer>\n", (), "a", "a"),
    "empty": ("", ("missing_modality", "missing_thinking", "missing_answer"), None, None),
    "bare answer": ("pneumonia", ("missing_modality", "missing_thinking", "missing_answer"), None, None),
    "no tag": ("<thinking>t</thinking><answer>a</answer>", ("missing_modality",), "a", "a"),
    "lower-case tag": (
        "<ct_scan><thinking>t</thinking><answer>a</answer>", ("missing_modality", "text_before_thinking"), "a", "a",
    ),
    "invented tag": ("<CAT_SCAN><thinking>t</thinking><answer>a</answer>", ("unknown_modality",), "a", "a"),
    "two tags": ("<CT_SCAN><MRI_SCAN><thinking>t</thinking><answer>a</answer>", ("text_before_thinking",), "a", "a"),
    "chatter first": ("Sure! " + GOOD, ("missing_modality", "text_before_thinking"), "a", "a"),
    "chatter between": ("<CT_SCAN><thinking>t</thinking>so: <answer>a</answer>", ("text_outside_blocks",), "a", "a"),
    "chatter after": (GOOD + " Hope this helps!", ("text_outside_blocks",), "a", "a"),
    "no thinking": ("<CT_SCAN><answer>a</answer>", ("missing_thinking",), "a", "a"),
    "thinking never closed": ("<CT_SCAN><thinking>t<answer>a</answer>", ("unclosed_thinking",), None, None),
    "empty thinking": ("<CT_SCAN><thinking> </thinking><answer>a</answer>", ("empty_thinking",), "a", "a"),
    "closing before opening": (
        "<CT_SCAN></thinking><thinking>t<answer>a</answer>", ("text_before_thinking", "unclosed_thinking"), None, None,
    ),
    "answer within the thinking only": (
        "<CT_SCAN><thinking>t<answer>a</answer></thinking>", ("answer_in_thinking", "missing_answer"), None, None,
    ),
    "answer within the thinking and after it": (
        "<CT_SCAN><thinking>t<answer>x</answer></thinking><answer>a</answer>", ("answer_in_thinking",), "a", None,
    ),
    "two answers": (GOOD + "<answer>b</answer>", ("repeated_answer", "text_outside_blocks"), "b", None),
    "second answer cut off": (GOOD + "<answer>b", ("repeated_answer", "text_outside_blocks"), "a", None),
    "answer cut off": ("<CT_SCAN><thinking>t</thinking><answer>a", ("unclosed_answer",), None, None),
    "empty answer": ("<CT_SCAN><thinking>t</thinking><answer> </answer>", ("empty_answer",), None, None),
    "two thinkings": (
        "<CT_SCAN><thinking>t</thinking><thinking>u</thinking><answer>a</answer>", ("repeated_thinking",), "a", None,
    ),
    "thinking after the answer": (
        GOOD + "<thinking>u</thinking>", ("repeated_thinking", "answer_in_thinking", "missing_answer"), None, None,
    ),
    "thinking opens within the answer": (
        "<CT_SCAN><thinking>t</thinking><answer>a<thinking></answer>", ("repeated_thinking", "nested_answer"),
        "a<thinking>", None,
    ),
    "answer before the thinking": (
        "<CT_SCAN><answer>x</answer><thinking>t</thinking><answer>a</answer>",
        ("text_before_thinking", "nested_answer"), "a", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problems", "answer", "scorable"), CASES.values(), ids=CASES.keys())
def test_faults_of_form(text: str, problems: tuple[str, ...], answer: str | None, scorable: str | None) -> None:
    parsed = parse_response(text)
    assert parsed.problems == problems
    assert parsed.answer == answer
    assert parsed.scorable_answer == scorable
    assert parsed.well_formed == (problems == ())


@pytest.mark.parametrize(
    "answer", ["A", "5 mg/dL", "< 3 mm", "a < b > c", "1:200", "T4/T5", "no", "β-blocker", "<0.05", "x</b>y", "a\nb"]
)
def test_clinical_text_is_never_edited(answer: str) -> None:
    assert parse_response(format_response("X_RAY", "t", answer)).answer == answer


def test_a_text_only_response_carries_the_tag_other() -> None:
    assert parse_response(format_response(None, "t", "a")).modality == "OTHER"


PIECES = ["<thinking>", "</thinking>", "<answer>", "</answer>", "<CT_SCAN>", "<XYZ>", " ", "\n", "word", "<", ">", "é"]
markup = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=25).map("".join)
# A plain text has no block tag of ours and no white space at its ends, which the parser strips.
plain = (
    st.text(min_size=1).map(str.strip).filter(lambda text: text and "thinking>" not in text and "answer>" not in text)
)


@given(st.one_of(st.text(), markup))
def test_any_text_is_parsed_and_a_scorable_answer_is_a_piece_of_it(text: str) -> None:
    parsed = parse_response(text)
    assert parsed.answer is None or (parsed.answer in text and parsed.answer.strip() == parsed.answer != "")
    assert parsed.scorable_answer in (None, parsed.answer)
    assert len(set(parsed.problems)) == len(parsed.problems)
    if AMBIGUOUS_PROBLEMS & set(parsed.problems):
        assert parsed.scorable_answer is None


@given(markup)
def test_no_problems_means_exactly_the_documented_form(text: str) -> None:
    parsed = parse_response(text)
    if parsed.well_formed:
        assert parsed.thinking
        assert parsed.answer
        rebuilt = format_response(parsed.modality, parsed.thinking, parsed.answer)
        assert "".join(rebuilt.split()) == "".join(text.split())


@given(st.sampled_from(sorted(MODALITIES)), plain, plain)
def test_what_is_formatted_is_read_back(tag: str, thinking: str, answer: str) -> None:
    parsed = parse_response(format_response(tag, thinking, answer))
    assert (parsed.modality, parsed.thinking, parsed.answer, parsed.problems) == (tag, thinking, answer, ())


@pytest.mark.parametrize("piece", ["<", "<answer>", "</answer>", "<thinking>", "</thinking>", " ", "<A"])
def test_a_long_response_takes_no_time(piece: str) -> None:
    start = time.perf_counter()
    parse_response("<CT_SCAN><thinking>" + piece * 100_000 + "</thinking><answer>" + piece * 100_000)
    assert time.perf_counter() - start < 1.0  # a quadratic parser would need minutes for 10^5 pieces
