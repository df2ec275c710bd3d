"""Outage drills over real HTTP: a scorer's fault never becomes a score, and nothing judged is judged again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from medix.errors import ScorerError
from reward_fns import CompositeScore, ScoringInput, build_composite
from reward_fns.scorers.service import ScorerService
from tests.reward_fns.scorers.conftest import until

pytestmark = pytest.mark.slow

JUDGE_ONLY = {"components": {"embed_accuracy": None}}


def responses(count: int) -> list[ScoringInput]:
    """Even ones are right, odd ones wrong, none an exact match."""
    texts = [f"{'good' if n % 2 == 0 else 'bad'} answer {n}" for n in range(count)]
    wrap = "<X_RAY><thinking>t</thinking><answer>{}</answer>"
    return [ScoringInput(wrap.format(text), "reference", "question?", "X_RAY") for text in texts]


async def score_all(service: ScorerService, items: list[ScoringInput], config: Any = None) -> list[Any]:
    composite = build_composite(config or JUDGE_ONLY, service)
    return await asyncio.gather(*(composite.score(item) for item in items), return_exceptions=True)


def check_no_fault_was_scored(results: list[Any]) -> int:
    """Every result is a ScorerError or the right verdict; gives the number of the latter."""
    scored = 0
    for n, result in enumerate(results):
        if isinstance(result, CompositeScore):
            assert result.flat()["llm_accuracy"] == float(n % 2 == 0)
            scored += 1
        else:
            assert isinstance(result, ScorerError), result
    return scored


async def hang(judge: Any, request: web.Request) -> None:
    await asyncio.sleep(5)


async def drip(judge: Any, request: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse()
    await reply.prepare(request)
    for _ in range(40):
        await reply.write(b" ")
        await asyncio.sleep(0.05)
    return reply


def always(make: Callable[[], web.Response]) -> Any:
    async def behave(judge: Any, request: web.Request) -> web.Response:
        return make()

    return behave


def chat(text: Any) -> Any:
    return always(lambda: web.json_response({"choices": [{"message": {"content": text}}]}))


FAULTS = {
    "hanging": (hang, "no reply"),
    "slow drip": (drip, "no reply"),
    "server errors": (always(lambda: web.Response(status=500, text="boom")), "HTTP 500"),
    "endless 429": (always(lambda: web.Response(status=429, headers={"Retry-After": "0"})), "HTTP 429"),
    "odd Retry-After": (always(lambda: web.Response(status=429, headers={"Retry-After": "\xb2"})), "HTTP 429"),
    "garbage verdict": (chat("I think the answer may well be right"), "YES or NO"),
    "both words": (chat("NO, but YES"), "YES or NO"),
    "empty verdict": (chat(""), "YES or NO"),
    "null verdict": (chat(None), "YES or NO"),
    "no choices": (always(lambda: web.json_response({"choices": []})), "no chat completion"),
    "not an object": (always(lambda: web.json_response(["YES"])), "a JSON list"),
    "not JSON": (always(lambda: web.Response(text="<html>YES</html>")), "<html>"),
    "JSON too deep": (always(lambda: web.Response(text="[" * 15_000)), "not JSON"),
    "huge reply": (chat("YES" * 50_000), "20000 bytes"),
    "redirect": (always(lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})), "HTTP 302"),
}
"""Name -> what the judge does, and what the error says of it."""
NO_OUTAGE = {
    *("redirect", "endless 429", "odd Retry-After", "huge reply"),
    *("garbage verdict", "both words", "empty verdict", "null verdict"),
}
"""The set-up is wrong, or a judge answers and gives no verdict, or wants fewer requests: it is not to be brought up."""
LIMITS: dict[str, dict[str, float]] = {"hanging": {"timeout_s": 0.25}, "slow drip": {"timeout_s": 0.25}}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_judge_that_never_answers_usably_stops_the_run_without_a_score(
    fault: str, fake_judge: Any, fast: Any
) -> None:
    fake_judge.behaviour, says = FAULTS[fault]
    service = ScorerService(fast(fake_judge.url, **LIMITS.get(fault, {})))
    results = await score_all(service, responses(6))
    assert check_no_fault_was_scored(results) == 0
    for result in results:
        assert says in str(result)
        assert ("bring the judge up" in str(result)) is (fault not in NO_OUTAGE)  # held to the limit, then this


@pytest.mark.parametrize("fault", ["hanging", "server errors", "endless 429", "not JSON"])
async def test_a_judge_that_comes_back_within_the_limit_loses_nothing(fault: str, fake_judge: Any, fast: Any) -> None:
    config = fast(fake_judge.url, **LIMITS.get(fault, {}))
    config["hold_limit_s"] = 20
    fake_judge.behaviour, _ = FAULTS[fault]
    service = ScorerService(config)
    work = asyncio.create_task(score_all(service, responses(10)))
    await until(lambda: service.stats().get("judge_failures", 0) > 10)
    await asyncio.sleep(0.3)
    assert not work.done()
    fake_judge.behaviour = None
    results = await asyncio.wait_for(work, 15)
    stats = service.stats()
    assert check_no_fault_was_scored(results) == 10
    assert stats["judge_failures"] > 0
    assert stats["judge_held_s"] > 0 or fault == "endless 429"  # a rate limit slows down and is no outage


async def test_a_judge_down_from_the_start_holds_and_then_says_what_to_do(fake_judge: Any, fast: Any) -> None:
    await fake_judge.stop()
    service = ScorerService(fast(fake_judge.url))
    results = await score_all(service, responses(4))
    assert check_no_fault_was_scored(results) == 0
    assert "bring the judge up" in str(results[0])


async def test_up_down_and_up_again_within_the_limit_loses_nothing(
    fake_judge: Any, fast: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = fast(fake_judge.url, max_in_flight=8)
    config["hold_limit_s"] = 20
    down = asyncio.Event()

    async def die_at_half(judge: Any, request: web.Request) -> web.Response | None:
        if sum(judge.answered.values()) >= 20:
            down.set()
            return web.Response(status=503)
        return None

    fake_judge.behaviour = die_at_half
    service = ScorerService(config)
    work = asyncio.create_task(score_all(service, responses(40)))
    await down.wait()
    await until(lambda: service.stats()["judge_is_down"])
    await asyncio.sleep(1)  # twenty probes
    assert not work.done()
    fake_judge.behaviour = None
    results = await asyncio.wait_for(work, 15)
    assert check_no_fault_was_scored(results) == 40
    assert set(fake_judge.answered.values()) == {1}
    opened, closed = caplog.messages
    assert f"judge at {fake_judge.url}/v1 is out of order" in opened
    assert "bring the judge up" in opened
    assert "is back after" in closed


@pytest.mark.parametrize(
    ("key", "model", "says"),
    [
        ("the right key", "the right model", ""),
        ("the right key\n", "the right model", ""),  # as `export KEY="$(cat file; echo)"` leaves it
        ("a wrong key", "the right model", "Check the key in $JUDGE_KEY"),
        ("the right key", "a wrong model", "the model's name"),
    ],
)
async def test_a_wrong_key_or_model_stops_at_once(
    key: str, model: str, says: str, fake_judge: Any, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_judge.key, fake_judge.model = "the right key", "the right model"
    monkeypatch.setenv("JUDGE_KEY", key)
    config = fast(fake_judge.url, api_key_env="JUDGE_KEY", model=model)
    config["hold_limit_s"] = 3600  # would hold for an hour if it were taken for an outage
    service = ScorerService(config)
    results = await asyncio.wait_for(score_all(service, responses(3)), 3)
    assert check_no_fault_was_scored(results) == (0 if says else 3)
    assert not says or says in str(results[0])


async def test_one_sample_the_judge_can_not_do_is_no_outage(fake_judge: Any, fast: Any) -> None:
    async def choke_on_one(judge: Any, request: web.Request) -> web.Response | None:
        body = judge.bodies[-1]["messages"][0]["content"]
        return web.json_response({"choices": [{"message": {"content": "?"}}]}) if "bad answer 1\n" in body else None

    fake_judge.behaviour = choke_on_one
    service = ScorerService(fast(fake_judge.url))
    results = await score_all(service, responses(20))
    stats = service.stats()
    assert check_no_fault_was_scored(results) == 19
    assert isinstance(results[1], ScorerError)
    assert stats["judge_outages"] == 0
