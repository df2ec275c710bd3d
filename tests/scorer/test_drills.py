"""Outage drills over real HTTP: a scorer's fault never becomes a score, and nothing judged is judged again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from medix.errors import ScorerError
from medix.scorer.service import ScorerService
from reward_fns import CompositeScore, ScoringInput, build_composite

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
    "hanging": hang,
    "slow drip": drip,
    "server errors": always(lambda: web.Response(status=500, text="boom")),
    "endless 429": always(lambda: web.Response(status=429, headers={"Retry-After": "0"})),
    "garbage verdict": chat("I think the answer may well be right"),
    "both words": chat("NO, but YES"),
    "empty verdict": chat(""),
    "null verdict": chat(None),
    "no choices": always(lambda: web.json_response({"choices": []})),
    "not an object": always(lambda: web.json_response(["YES"])),
    "not JSON": always(lambda: web.Response(text="<html>YES</html>")),
    "huge reply": always(lambda: web.json_response({"choices": [{"message": {"content": "YES" * 50_000}}]})),
    "redirect": always(lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})),
}


SHORT = {"timeout_s": 0.15, "deadline_s": 0.6}
PATIENCE: dict[str, dict[str, float]] = {"hanging": SHORT, "slow drip": SHORT}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_judge_that_never_answers_usably_stops_the_run_without_a_score(
    fault: str, fake_judge: Any, fast: Any
) -> None:
    fake_judge.behaviour = FAULTS[fault]
    service = ScorerService(fast(fake_judge.url, **PATIENCE.get(fault, {})))
    results = await score_all(service, responses(6))
    await service.aclose()
    assert check_no_fault_was_scored(results) == 0


@pytest.mark.parametrize("fault", ["hanging", "server errors", "endless 429", "garbage verdict", "not JSON"])
async def test_a_judge_that_comes_back_within_the_limit_loses_nothing(fault: str, fake_judge: Any, fast: Any) -> None:
    config = fast(fake_judge.url, **PATIENCE.get(fault, {}))
    config["breaker"]["hold_limit_s"] = 20
    fake_judge.behaviour = FAULTS[fault]
    service = ScorerService(config)
    work = asyncio.create_task(score_all(service, responses(10)))
    await asyncio.sleep(0.7)
    assert not work.done()
    fake_judge.behaviour = None
    results = await asyncio.wait_for(work, 15)
    stats = service.stats()
    await service.aclose()
    assert check_no_fault_was_scored(results) == 10
    assert stats["judge_breaker_opened"] >= 1
    assert stats["judge_held_s"] > 0


async def test_a_judge_down_from_the_start_holds_and_then_says_what_to_do(fake_judge: Any, fast: Any) -> None:
    await fake_judge.stop()
    service = ScorerService(fast(fake_judge.url))
    results = await score_all(service, responses(4))
    await service.aclose()
    assert check_no_fault_was_scored(results) == 0
    assert "bring the judge up" in str(results[0])


async def test_dying_at_half_then_resuming_repeats_no_judged_call(fake_judge: Any, fast: Any, tmp_path: Any) -> None:
    config = fast(fake_judge.url, cache=str(tmp_path / "cache" / "verdicts.sqlite"))
    items = responses(40)

    async def die_at_half(judge: Any, request: web.Request) -> web.Response | None:
        return web.Response(status=503) if sum(judge.answered.values()) >= 20 else None

    fake_judge.behaviour = die_at_half
    service = ScorerService(config)
    first = await score_all(service, items)
    await service.aclose()
    assert check_no_fault_was_scored(first) == 20
    fake_judge.behaviour = None
    resumed = ScorerService(config)
    second = await score_all(resumed, items)
    stats = resumed.stats()
    await resumed.aclose()
    assert check_no_fault_was_scored(second) == 40
    assert set(fake_judge.answered.values()) == {1}  # every answer was judged exactly once over both runs
    assert stats["judge_cache_hits"] == 20


async def test_a_429_storm_is_ridden_out(fake_judge: Any, fast: Any) -> None:
    async def every_other(judge: Any, request: web.Request) -> web.Response | None:
        return web.Response(status=429, headers={"Retry-After": "0"}) if len(judge.bodies) % 2 else None

    fake_judge.behaviour = every_other
    service = ScorerService(fast(fake_judge.url, retries=6))
    results = await score_all(service, responses(30))
    stats = service.stats()
    await service.aclose()
    assert check_no_fault_was_scored(results) == 30
    assert stats["judge_retries"] > 0


@pytest.mark.parametrize(("status", "says"), [(401, "key"), (403, "key"), (404, "model's name")])
async def test_a_wrong_key_or_model_stops_at_once(status: int, says: str, fake_judge: Any, fast: Any) -> None:
    fake_judge.behaviour = always(lambda: web.Response(status=status, text="no"))
    config = fast(fake_judge.url)
    config["breaker"]["hold_limit_s"] = 3600  # would hold for an hour if it were taken for an outage
    service = ScorerService(config)
    results = await asyncio.wait_for(score_all(service, responses(3)), 3)
    await service.aclose()
    assert check_no_fault_was_scored(results) == 0
    assert says in str(results[0])


async def test_one_sample_the_judge_can_not_do_does_not_open_the_breaker(fake_judge: Any, fast: Any) -> None:
    async def choke_on_one(judge: Any, request: web.Request) -> web.Response | None:
        body = judge.bodies[-1]["messages"][0]["content"]
        return web.json_response({"choices": [{"message": {"content": "?"}}]}) if "bad answer 1\n" in body else None

    fake_judge.behaviour = choke_on_one
    service = ScorerService(fast(fake_judge.url))
    results = await score_all(service, responses(20))
    stats = service.stats()
    await service.aclose()
    assert check_no_fault_was_scored(results) == 19
    assert isinstance(results[1], ScorerError)
    assert stats["judge_breaker_opened"] == 0


async def test_a_dying_embedder_holds_and_a_dead_one_stops(fake_judge: Any, fake_encoder: Any, fast: Any) -> None:
    config = fast(fake_judge.url)
    service = ScorerService(config, encoder=fake_encoder)
    fake_encoder.broken = True
    work = asyncio.create_task(score_all(service, responses(6), {"preset": "strict"}))
    await asyncio.sleep(0.2)
    assert not work.done()
    fake_encoder.broken = False
    assert check_no_fault_was_scored(await asyncio.wait_for(work, 5)) == 6
    fake_encoder.broken = True
    late = [ScoringInput("<thinking>t</thinking><answer>new</answer>", "unseen reference")]
    result = (await score_all(service, late, {"preset": "strict"}))[0]
    await service.aclose()
    assert isinstance(result, ScorerError)
    assert "embedder" in str(result)
