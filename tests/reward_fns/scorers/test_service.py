"""The service when all is well: coalescing, bounds, least-loaded endpoints, constraints, probabilities."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

import pytest
from aiohttp import web

from medix.errors import MedixError, ScorerError
from medix.sample import NOT_APPLICABLE
from reward_fns.scorers.chat import ChatClient, Sampling, user_message
from reward_fns.scorers.endpoints import EndpointError, EndpointOptions
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import Verdict
from reward_fns.scorers.verdict import parse_verdict, yes_probability
from tests.reward_fns.scorers.conftest import ask


async def test_equal_questions_in_flight_share_one_call_and_later_ones_the_cache(fake_judge: Any, fast: Any) -> None:
    service = ScorerService(fast(fake_judge.url))
    verdicts = await asyncio.gather(*(service.judge(ask(n % 3)) for n in range(30)))
    again = await service.judge(ask(0))
    stats = service.stats()
    assert sum(fake_judge.asked.values()) == 3
    assert all(verdict.correct for verdict in verdicts)
    assert again.cached
    assert (stats["judge_calls"], stats["judge_coalesced"], stats["judge_cache_hits"]) == (3, 27, 1)


async def test_calls_in_flight_are_bounded(fake_judge: Any, fast: Any) -> None:
    now, peak = 0, 0

    async def count(judge: Any, request: web.Request) -> None:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(0.01)
        now -= 1

    fake_judge.behaviour = count
    service = ScorerService(fast(fake_judge.url, max_in_flight=7))
    await asyncio.gather(*(service.judge(ask(n)) for n in range(40)))
    assert peak == 7


async def test_two_endpoints_share_the_load_and_a_dead_one_is_passed_over(fake_judge: Any, fast: Any) -> None:
    other = type(fake_judge)()
    await other.start()
    config = fast("")
    config["judge"]["urls"] = [fake_judge.url, f"{other.url}/v1"]
    service = ScorerService(config)
    await asyncio.gather(*(service.judge(ask(n)) for n in range(40)))
    shares = (sum(fake_judge.asked.values()), sum(other.asked.values()))
    await other.stop()
    await asyncio.gather(*(service.judge(ask(n)) for n in range(100, 120)))
    assert min(shares) >= 10
    assert sum(fake_judge.asked.values()) == shares[0] + 20


async def test_one_prompt_that_is_too_long_leaves_the_constraint_to_the_others(fake_judge: Any, fast: Any) -> None:
    async def refuse_long(judge: Any, request: web.Request) -> web.Response | None:
        if "LONG" in judge.bodies[-1]["messages"][0]["content"]:
            return web.Response(status=400, text="maximum context length is 2048 tokens")
        await asyncio.sleep(0.05)  # so that the refusal comes before the first success
        return None

    fake_judge.behaviour = refuse_long
    service = ScorerService(fast(fake_judge.url))
    requests = [ask(0, question="LONG"), *(ask(n) for n in range(1, 6))]
    results = await asyncio.gather(*(service.judge(request) for request in requests), return_exceptions=True)
    assert isinstance(results[0], ScorerError)
    assert "maximum context length" in str(results[0])
    assert all(isinstance(result, Verdict) for result in results[1:])
    assert all("structured_outputs" in body for body in fake_judge.bodies)
    assert fake_judge.asked["good 0"] == 1  # the same bytes would be refused again


@pytest.mark.parametrize(
    "beside",
    [
        {"usage": [1]}, {"usage": "9"}, {"logprobs": 5}, {"logprobs": {"content": 5}},
        {"logprobs": {"content": ["x"]}}, {"logprobs": {"content": [{"top_logprobs": ["x"]}]}},
        {"logprobs": {"content": [{"top_logprobs": {"YES": -1}}]}},
    ],
    ids=json.dumps,
)  # fmt: skip
async def test_an_odd_field_beside_the_verdict_was_not_offered(beside: Any, fake_judge: Any, fast: Any) -> None:
    async def reply(judge: Any, request: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": "YES"}, **beside}], **beside})

    fake_judge.behaviour = reply
    service = ScorerService(fast(fake_judge.url))
    verdict = await service.judge(ask(0))
    assert (verdict.correct, verdict.yes_probability) == (True, NOT_APPLICABLE)


@pytest.mark.parametrize(
    ("reply", "strict", "substring"),
    [
        ("YES", True, True), ("NO", False, False), (" yes.\n", True, True), ("**NO**", False, False),
        ('{"verdict": "YES"}', True, True), ('{"verdict": "YES", "also": "NO"}', None, True),
        ("<think>YES or NO?</think> NO", False, True), ("<think>YES", None, True), ("EYES", None, True),
        ("NO, but YES", None, True), ("YES NO", None, True), ("Yes, because it is", None, True), ("", None, None),
        ("maybe", None, None), ("NOT SURE", None, False), ("YESYES", None, True), ("ＹＥＳ", None, None),
    ],
)  # fmt: skip
def test_verdicts_are_parsed_strictly_or_as_released(reply: str, strict: bool | None, substring: bool | None) -> None:
    assert parse_verdict(reply, "strict") is strict
    assert parse_verdict(reply, "substring") is substring


def test_the_probability_of_yes_sums_the_tokens_that_begin_each_word() -> None:
    options = [("YES", 0.5), ("N", 0.2), ("NO", 0.1), ("Maybe", 0.2)]
    entry = {"top_logprobs": [{"token": token, "logprob": math.log(p)} for token, p in options]}
    assert yes_probability([entry]) == pytest.approx(0.5 / 0.8)  # N and NO are both the beginning of NO
    assert yes_probability([]) == -1
    assert yes_probability([{"top_logprobs": [{"token": "?", "logprob": 0.0}]}]) == -1


async def test_chat_client_for_generation_sends_images_and_returns_usage(fake_judge: Any) -> None:
    async def describe(judge: Any, request: web.Request) -> web.Response:
        choice = {"message": {"content": "a chest"}, "finish_reason": "length"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 300, "completion_tokens": 2}})

    fake_judge.behaviour = describe
    prompt = "[[REFERENCE]]\nr\n[[/REFERENCE]][[CANDIDATE]]\nc\n[[/CANDIDATE]][[ALSO ACCEPTED]]\n-\n[[/ALSO ACCEPTED]]"
    client = ChatClient(EndpointOptions(urls=(fake_judge.url,), retries=0), "vlm")
    reply = await client.complete(user_message(prompt), Sampling(max_tokens=2, extra={"top_k": 5}))
    await client.aclose()
    assert (reply.text, reply.finish_reason, reply.usage["prompt_tokens"]) == ("a chest", "length", 300)
    assert fake_judge.bodies[0]["top_k"] == 5
    content = user_message("what?", [b"\x89PNG1", b"\xff\xd82"])[0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_an_endpoint_error_survives_pickling_with_its_kind() -> None:
    import pickle

    error = EndpointError("a", "b", "busy", 429, 2.0)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, MedixError)
    assert (copy.kind, copy.status, copy.retry_after_s, str(copy)) == ("busy", 429, 2.0, str(error))


async def test_a_cancelled_caller_does_not_take_the_verdict_from_the_others(fake_judge: Any, fast: Any) -> None:
    async def slow(judge: Any, request: web.Request) -> None:
        await asyncio.sleep(0.05)

    fake_judge.behaviour = slow
    service = ScorerService(fast(fake_judge.url))
    first, second = (asyncio.create_task(service.judge(ask(0))) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await second).correct


async def test_closing_does_not_wait_for_a_hanging_judge(fake_judge: Any, fast: Any) -> None:
    async def hang(judge: Any, request: web.Request) -> None:
        await asyncio.sleep(3)

    fake_judge.behaviour = hang
    service = ScorerService(fast(fake_judge.url, timeout_s=30.0))
    waiting = asyncio.create_task(service.judge(ask(0)))
    await asyncio.sleep(0.05)
    start = time.monotonic()
    await service.aclose()
    assert time.monotonic() - start < 1
    with pytest.raises(asyncio.CancelledError):
        await waiting
