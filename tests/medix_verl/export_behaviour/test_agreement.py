"""When two ways of running a model count as the same: the arithmetic, without a model."""

from __future__ import annotations

from typing import Any

import pytest

from medix.errors import ExportError
from medix_verl.export.agreement import EXACT, NEAR_TIE, agree_log_probs, agree_tokens
from medix_verl.export.behaviour import judge_generations


def sharded(*values: float, without_lora: tuple[float, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {"ranks": 2, "log_probs": {"text": list(values)}}
    return found | ({"log_probs_without_lora": {"text": list(without_lora)}} if without_lora else {})


def test_the_largest_difference_counts() -> None:
    record = agree_log_probs({"text": [-1.0, -2.0]}, sharded(-1.0, -2.0005), "float32")
    assert record["largest_difference"] == pytest.approx(0.0005)
    assert record["tokens"] == 2


REFUSED = {
    "another model": ([-1.0, -2.0], sharded(-1.0, -2.0 - 2 * EXACT), "float32", "a difference of 0.0020"),
    "not a number": ([-1.0, float("nan")], sharded(-1.0, -2.0), "float32", "a difference of nan"),
    "not a number over there": ([-1.0], sharded(float("nan")), "bfloat16", "a difference of nan"),
    # The adapter moves the token by 1; an unfolded export sits at the base model's value.
    "the adapter was not folded": ([-2.0], sharded(-1.0, without_lora=(-2.0,)), "float32", "nearer to the base model"),
    "not folded, 16 bits": ([-1.99], sharded(-1.0, without_lora=(-2.0,)), "bfloat16", "nearer to the base model"),
    # 0.6 away from the adapted model, and 1.6 from the base on the other side: more than half of what LoRA moves.
    "folded wrongly, 16 bits": ([-0.4], sharded(-1.0, without_lora=(-2.0,)), "bfloat16", "a difference of 0.6000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_model_is_refused(case: str) -> None:
    ours, reference, dtype, message = REFUSED[case]
    with pytest.raises(ExportError, match=message):
        agree_log_probs({"text": ours}, reference, dtype)


def test_a_folded_adapter_may_round_in_16_bits_only() -> None:
    reference = sharded(-1.0, without_lora=(-2.0,))
    assert agree_log_probs({"text": [-1.01]}, reference, "bfloat16")["allowed"] == 0.5  # half of what LoRA moves
    with pytest.raises(ExportError, match=r"within 0\.001 nats"):
        agree_log_probs({"text": [-1.01]}, reference, "float32")


def test_an_adapter_that_moves_nothing_is_like_its_base() -> None:
    record = agree_log_probs({"text": [-1.0]}, sharded(-1.0, without_lora=(-1.0,)), "float32")
    assert record["lora_moves_by"] == 0.0


def ours(margin: float) -> dict[str, Any]:
    return {"text": {"tokens": [4, 5, 2], "margins": [9.0, margin, 9.0], "second": [1, 6, 1]}}


def vllm(*tokens: int) -> dict[str, Any]:
    return {"version": "0.28.0", "dtype": "float32", "tokens": {"text": list(tokens)}}


def test_vllm_may_part_at_a_tie_only() -> None:
    assert agree_tokens(ours(9.0), vllm(4, 5, 2))["text"] == {"tokens": 3, "same": 3}
    tie = agree_tokens(ours(NEAR_TIE / 2), vllm(4, 6, 2))["text"]
    assert tie == {"tokens": 3, "same": 1, "parted_at_a_tie_of": NEAR_TIE / 2}


@pytest.mark.parametrize(
    ("margin", "tokens"),
    [(9.0, (4, 6, 2)), (NEAR_TIE / 2, (4, 7, 2)), (9.0, (4, 5)), (9.0, (4, 5, 2, 3)), (9.0, ())],
    ids=["a clear choice", "not the second choice", "ended early", "went on past the end", "nothing"],
)
def test_vllm_that_parts_elsewhere_is_refused(margin: float, tokens: tuple[int, ...]) -> None:
    with pytest.raises(ExportError, match="vLLM's greedy answer to the text question"):
        agree_tokens(ours(margin), vllm(*tokens))


def generation(answer: str, terminated: bool = True) -> dict[str, Any]:
    found = {"question": "Q?", "answer": answer, "tokens": [2], "terminated": terminated}
    return {"image": None, "generations": {"text": found}}


def test_an_empty_answer_is_refused_and_an_endless_one_is_noted() -> None:
    with pytest.raises(ExportError, match=r"an answer to the text question 'Q\?'; found nothing"):
        judge_generations(generation(" \n"))
    assert judge_generations(generation("heart", terminated=False))["text"]["terminated"] is False
