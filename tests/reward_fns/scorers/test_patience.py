"""When a call is repeated, held or given up; what is retried, and after how long; which endpoint is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from medix.errors import ScorerError
from reward_fns.scorers.breaker import BreakerOptions, CircuitBreaker
from reward_fns.scorers.endpoints import CONTENT_STATUSES, Deadline, EndpointError, EndpointOptions, EndpointPool
from reward_fns.scorers.patience import Patience
from reward_fns.scorers.service import ScorerService
from tests.reward_fns.scorers.conftest import FakeJudge, ask

pytestmark = pytest.mark.slow


def patience(tries: int, deadline_s: float = 60.0, **breaker: Any) -> Patience:
    options = BreakerOptions(**{"probe_first_s": 0.01, "probe_max_s": 0.01, "hold_limit_s": 0.1, **breaker})
    return Patience(CircuitBreaker(options, "judge", "http://h"), tries, deadline_s)


def failing(seen: list[Any], each_s: float = 0.0) -> Callable[[Deadline], Awaitable[None]]:
    async def fail(deadline: Deadline) -> None:
        deadline.begin()
        seen.append(deadline.left_s)
        await asyncio.sleep(each_s)
        raise ScorerError("a verdict", "none", "mend it")

    return fail


async def others_are_answered(breaker: CircuitBreaker) -> None:
    while True:
        breaker.record(True)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("tries", "deadline_s", "each_s", "calls"),
    [
        (3, 60.0, 0.0, 3),  # three tries
        (9, 0.25, 0.1, 3),  # 0.1 s a call: 0.3 s is over the deadline of 0.25, the waits between do not count
    ],
)
async def test_what_the_judge_can_not_do_while_it_does_others_is_given_up(
    tries: int, deadline_s: float, each_s: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_fns.scorers.patience.random.uniform", lambda low, high: 0.1)
    limits, seen = patience(tries, deadline_s), []
    busy = asyncio.create_task(others_are_answered(limits.breaker))
    with pytest.raises(ScorerError, match="found none"):
        await limits.get(failing(seen, each_s))
    busy.cancel()
    assert len(seen) == calls
    assert limits.breaker.opened == 0
    assert seen[0] == pytest.approx(deadline_s, abs=0.01)  # each call gets what its sample has left
    assert seen[-1] == pytest.approx(deadline_s - (calls - 1) * each_s, abs=0.05)


@pytest.mark.parametrize(("tries", "deadline_s", "each_s"), [(1, 60.0, 0.0), (9, 0.05, 0.1)], ids=["try", "deadline"])
async def test_a_call_whose_first_failure_spends_all_holds_once_and_is_given_up_then(
    tries: int, deadline_s: float, each_s: float
) -> None:
    """One failure says nothing yet: it may be an outage. The others' answers end that, and its next failures tell."""
    limits, seen = patience(tries, deadline_s, hold_limit_s=5.0), []
    busy = asyncio.create_task(others_are_answered(limits.breaker))
    with pytest.raises(ScorerError, match="found none"):
        await asyncio.wait_for(limits.get(failing(seen, each_s)), 4.0)
    busy.cancel()
    assert limits.breaker.opened == 1


async def test_answers_from_before_its_last_failure_do_not_make_an_outage_its_own() -> None:
    """28 were answered, then the judge is gone: it holds (and breaks at the limit) instead of giving the call up."""
    limits, seen = patience(tries=2), []
    for _ in range(28):
        limits.breaker.record(True)
    with pytest.raises(ScorerError, match="come back within"):
        await limits.get(failing(seen))
    assert limits.breaker.opened == 1
    assert len(seen) > 3  # probed again and again: a failed probe is not a try


def refusing(status: int) -> Callable[[Deadline], Awaitable[None]]:
    async def refuse(deadline: Deadline) -> None:
        raise EndpointError("HTTP 200", f"HTTP {status}", "shorten it", "refused", status)

    return refuse


@pytest.mark.parametrize("status", CONTENT_STATUSES)
async def test_refusals_of_what_was_sent_are_no_outage(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """One answer and six refusals: 6 of 7 would be over the rate of 0.5, with more calls than the 5 it asks for."""
    limits = patience(tries=3)
    limits.breaker.record(True)
    for _ in range(6):
        with pytest.raises(ScorerError, match=f"HTTP {status}"):
            await limits.get(refusing(status))
    assert (limits.breaker.opened, caplog.messages, limits.failures) == (0, [], 6)


async def test_a_refused_probe_ends_the_outage(caplog: pytest.LogCaptureFixture) -> None:
    limits = patience(tries=3, hold_limit_s=5.0)
    limits.breaker.trip()
    with pytest.raises(ScorerError, match="HTTP 413"):
        await limits.get(refusing(413))
    assert not limits.breaker.is_open
    assert "is back after" in caplog.messages[-1]


@pytest.mark.parametrize(("hold_limit_s", "says"), [(0.2, True), (0.0, False)], ids=["holding", "a probe's breaker"])
async def test_a_long_outage_is_told_again_and_a_breaker_that_holds_nothing_is_silent(
    hold_limit_s: float, says: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CircuitBreaker, "REMINDER_S", 0.05)
    limits = patience(tries=1, hold_limit_s=hold_limit_s)
    with pytest.raises(ScorerError, match="come back within"):
        await limits.get(failing([]))
    assert any("still out of order" in line and "http://h" in line for line in caplog.messages) is says
    assert 2 <= len(caplog.messages) <= 5 if says else not caplog.messages  # at most one each 0.05 s of 0.2 s


async def test_what_failed_in_an_outage_does_not_count_after_it() -> None:
    """Two tries open the breaker, two probes fail; while the third is under way another is answered: one try of two."""
    limits, calls = patience(tries=2, hold_limit_s=5.0), 0

    async def call(deadline: Deadline) -> str:
        nonlocal calls
        calls += 1
        if calls == 5:
            limits.breaker.record(True)
        if calls < 6:
            raise ScorerError("a verdict", "none", "mend it")
        return "verdict"

    assert await limits.get(call) == "verdict"
    assert (calls, limits.breaker.opened) == (6, 1)


async def test_the_breaker_opens_by_rate_before_any_call_is_spent() -> None:
    """2 answered, then 2 failures: 2 of 4 is the rate of 0.5, with far more tries left."""
    limits = patience(tries=100, min_calls=4, window=8)
    for _ in range(2):
        limits.breaker.record(True)
    work = [asyncio.create_task(limits.get(failing([]))) for _ in range(2)]
    await asyncio.sleep(0.005)
    assert limits.breaker.is_open
    assert limits.failures == 2
    assert all(isinstance(error, ScorerError) for error in await asyncio.gather(*work, return_exceptions=True))


async def test_waiting_for_our_own_slot_is_not_held_against_a_sample(fake_judge: Any, fast: Any) -> None:
    """One slot, 12 calls of 0.1 s: the last waits 1.1 s, over its deadline of 1 s. It fails once and is asked again."""

    async def fail_the_last_once(judge: Any, request: web.Request) -> web.Response | None:
        await asyncio.sleep(0.1)
        if judge.asked["good 11"] == 1 and "good 11\n" in judge.bodies[-1]["messages"][0]["content"]:
            return web.json_response({"choices": [{"message": {"content": "?"}}]})
        return None

    fake_judge.behaviour = fail_the_last_once
    service = ScorerService(fast(fake_judge.url, max_in_flight=1, deadline_s=1.0, tries=3))
    await asyncio.gather(*(service.judge(ask(n)) for n in range(12)))
    stats = service.stats()
    await service.aclose()
    assert fake_judge.asked["good 11"] == 2
    assert stats["judge_breaker_opened"] == 0


def answering(status: int = 200, text: str = "", wait_s: float = 0.0, **headers: str) -> Any:
    async def answer(judge: Any, request: web.Request) -> web.Response:
        await asyncio.sleep(wait_s)
        return web.Response(status=status, text=text, headers=headers)

    return answer


BLOCKS = ("REFERENCE", "ALSO ACCEPTED", "CANDIDATE")
BODY = {"messages": [{"content": "".join(f"[[{name}]]\nx\n[[/{name}]]\n" for name in BLOCKS)}]}


@pytest.mark.parametrize(
    ("behaviour", "kind", "asked"),
    [
        (answering(429), "busy", 3), (answering(500), "server", 3), (answering(503), "server", 3),
        (answering(408), "server", 3), (answering(400), "refused", 1), (answering(401), "refused", 1),
        (answering(wait_s=1.0), "timeout", 1), (answering(text="<html>"), "malformed", 1),
        (answering(text="[1]"), "malformed", 1), (answering(text=f'"{"x" * 3000}"'), "oversized", 1),
    ],
    ids=["429", "500", "503", "408", "400", "401", "time-out", "not JSON", "not an object", "oversized"],
)  # fmt: skip
async def test_only_what_another_try_can_mend_is_retried(
    behaviour: Any, kind: str, asked: int, fake_judge: Any
) -> None:
    fake_judge.behaviour = behaviour
    options = EndpointOptions(urls=(fake_judge.url,), retries=2, backoff_s=0.01, timeout_s=0.2, max_reply_bytes=2000)
    pool = EndpointPool(options)
    with pytest.raises(EndpointError) as fault:
        await pool.post("/v1/chat/completions", BODY)
    await pool.aclose()
    assert (fault.value.kind, len(fake_judge.bodies)) == (kind, asked)


async def test_a_retry_waits_as_long_as_the_server_says(fake_judge: Any) -> None:
    fake_judge.behaviour = answering(429, **{"Retry-After": "1"})
    pool = EndpointPool(EndpointOptions(urls=(fake_judge.url,), retries=1, backoff_s=0.01))
    start = time.monotonic()
    with pytest.raises(EndpointError):
        await pool.post("/v1/chat/completions", BODY)
    await pool.aclose()
    assert 1.0 <= time.monotonic() - start < 2.0


async def test_waits_double_up_to_a_limit_and_differ_from_call_to_call() -> None:
    """Half to whole of 0.5 x 2^attempt, at most 4 s; what the server asks for is a floor, up to the limit."""
    pool = EndpointPool(EndpointOptions(urls=("http://h",), backoff_s=0.5, backoff_max_s=4.0))
    busy = EndpointError("a", "b", "c", "busy")
    for attempt, ceiling in enumerate((0.5, 1.0, 2.0, 4.0, 4.0)):
        waits = [pool._backoff(attempt, busy) for _ in range(50)]
        assert all(ceiling / 2 <= wait <= ceiling for wait in waits)
        assert len(set(waits)) > 40  # drawn: 256 calls that fail together must not come back together
    assert pool._backoff(0, EndpointError("a", "b", "c", "busy", 429, 3.0)) == 3.0
    assert pool._backoff(0, EndpointError("a", "b", "c", "busy", 429, 99.0)) == 4.0


@pytest.mark.parametrize(
    "fault",
    [answering(500), answering(503), answering(429), answering(401), answering(text="<html>")],
    ids=["500", "503", "429", "401", "not JSON"],
)
async def test_an_endpoint_that_fails_fast_does_not_attract_the_calls(fault: Any, fake_judge: Any, fast: Any) -> None:
    """One at a time both are idle, so that the first address would be asked each time."""
    good = FakeJudge()
    await good.start()
    config = fast("", retries=2)
    config["judge"]["urls"] = [fake_judge.url, good.url]
    service = ScorerService(config)
    await service.judge(ask(0))  # else a refused key would be a wrong set-up
    fake_judge.behaviour = fault
    for n in range(1, 11):
        await service.judge(ask(n))
    await service.aclose()
    await good.stop()
    assert sum(fake_judge.asked.values()) == 2  # the first call, and the one that failed
    assert sum(good.asked.values()) == 10
