"""When a call is repeated, held or given up, how long it waits, and how a rate limit slows all calls down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web

from medix.errors import ScorerError
from reward_fns.scorers import retry
from reward_fns.scorers.chat import ChatClient, user_message
from reward_fns.scorers.endpoints import EndpointOptions, EndpointPool
from reward_fns.scorers.retry import CONTENT_STATUSES, EndpointError, FaultKind, RetryPolicy, Slots
from reward_fns.scorers.service import ScorerService
from tests.reward_fns.scorers.conftest import FakeJudge, ask

pytestmark = pytest.mark.slow


def policy(retries: int, hold_limit_s: float = 0.1, waits: tuple[float, float] = (0.01, 0.02)) -> RetryPolicy:
    return RetryPolicy("judge", "http://h", retries, Slots(8), waits, hold_limit_s)


def failing(seen: list[float], kind: FaultKind = "server", **changes: Any) -> Callable[[float], Awaitable[str]]:
    async def fail(left_s: float) -> str:
        seen.append(left_s)
        raise EndpointError("There is no verdict.", "Mend it.", kind, **changes)

    return fail


async def answer(_left_s: float) -> str:
    return "verdict"


async def others_are_answered(limits: RetryPolicy) -> None:
    while True:
        await limits.run(answer)
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("kind", "others", "calls", "holds"),
    [
        ("server", True, 3, False), ("timeout", True, 3, False), ("malformed", True, 3, False),
        ("server", False, 4, True), ("timeout", False, 4, True), ("connect", False, 4, True),
        ("unusable", False, 3, False),  # a reply was read: the judge is up, and says no verdict
    ],
)  # fmt: skip
async def test_a_call_of_two_retries_is_given_up_while_others_are_answered_and_held_when_nobody_is(
    kind: FaultKind, others: bool, calls: int, holds: bool
) -> None:
    limits, seen = policy(retries=2, hold_limit_s=0.3), []
    busy = asyncio.create_task(others_are_answered(limits)) if others else None
    with pytest.raises(ScorerError, match="gave no answer within" if holds else r"^There is no verdict\."):
        await limits.run(failing(seen, kind))
    if busy:
        busy.cancel()
    assert (len(seen) >= calls) if holds else (len(seen) == calls)
    assert limits.outages == holds


async def test_answers_from_before_its_last_failure_do_not_make_an_outage_its_own() -> None:
    limits, seen = policy(retries=1), []
    for _ in range(28):
        await limits.run(answer)
    with pytest.raises(ScorerError, match="gave no answer within"):
        await limits.run(failing(seen))
    assert len(seen) > 3


@pytest.mark.parametrize("changes", [{"final": True}, {"kind": "refused", "status": 413, "final": True}])
async def test_what_asking_again_can_not_mend_is_raised_at_once(changes: Any) -> None:
    limits, seen = policy(retries=9), []
    with pytest.raises(EndpointError):
        await limits.run(failing(seen, **changes))
    assert (len(seen), limits.failures, limits.outages) == (1, 1, 0)


async def test_a_limit_of_its_own_holds_nothing_and_bounds_all_tries() -> None:
    """0.05 s of waits at the least between two tries: within 0.12 s there are two or three of the hundred."""
    limits, seen = policy(retries=100, hold_limit_s=60, waits=(0.1, 0.1)), []
    with pytest.raises(EndpointError):
        await limits.run(failing(seen), limit_s=0.12)
    assert 2 <= len(seen) <= 3
    assert seen[0] == 0.12
    assert seen[-1] < 0.12  # each try gets what is left


@pytest.mark.parametrize(("hold_limit_s", "says"), [(0.2, True), (0.0, False)], ids=["holding", "a probe"])
async def test_a_long_outage_is_told_again_and_a_policy_that_holds_nothing_is_silent(
    hold_limit_s: float, says: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "REMINDER_S", 0.05)
    with pytest.raises(ScorerError):
        await policy(retries=1, hold_limit_s=hold_limit_s).run(failing([]))
    assert any("out of order since" in line and "http://h" in line for line in caplog.messages) is says
    assert 2 <= len(caplog.messages) <= 5 if says else not caplog.messages  # at most one each 0.05 s of 0.2 s


async def test_waits_double_up_to_a_limit_and_differ_from_call_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half to whole of 0.5, 1, 2, 4, 4 s; what the server asks for is a floor."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(retry.asyncio, "sleep", sleep)
    for _ in range(20):
        with pytest.raises(EndpointError):
            await policy(retries=5, hold_limit_s=0.0, waits=(0.25, 4.0)).run(failing([]))
    for attempt, ceiling in enumerate((0.5, 1.0, 2.0, 4.0, 4.0)):
        waits = slept[attempt::5]
        assert all(ceiling / 2 <= wait <= ceiling for wait in waits)
        assert len(set(waits)) > 15  # 256 calls that fail together must not come back together
    with pytest.raises(EndpointError):
        await policy(retries=1, hold_limit_s=0.0).run(failing([], retry_after_s=7.0))
    assert slept[-1] == 7.0


async def test_waiting_for_our_own_slot_is_not_held_against_a_call() -> None:
    """One slot, 12 calls of 0.05 s: the last waits 0.55 s, over its limit of 0.2 s, and is answered."""
    limits = RetryPolicy("judge", "http://h", 0, Slots(1), (0.01, 0.02), 0.0)

    async def slow(left_s: float) -> float:
        await asyncio.sleep(0.05)
        return left_s

    assert await asyncio.gather(*(limits.run(slow, limit_s=0.2) for _ in range(12))) == [0.2] * 12


async def test_a_cancelled_caller_gives_its_turn_to_the_next() -> None:
    slots, entered = Slots(1), []

    async def enter(n: int) -> None:
        async with slots:
            entered.append(n)
            await asyncio.sleep(0.01)

    calls = [asyncio.create_task(enter(n)) for n in range(4)]
    await asyncio.sleep(0.001)
    calls[1].cancel()
    calls[2].cancel()
    await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 1)
    assert (entered, slots.used) == ([0, 3], 0)


def answering(status: int = 200, text: str = "", wait_s: float = 0.0, **headers: str) -> Any:
    async def reply(judge: Any, request: web.Request) -> web.Response:
        await asyncio.sleep(wait_s)
        return web.Response(status=status, text=text, headers=headers)

    return reply


BLOCKS = ("REFERENCE", "ALSO ACCEPTED", "CANDIDATE")
BODY = {"model": "m", "messages": [{"content": "".join(f"[[{name}]]\nx\n[[/{name}]]\n" for name in BLOCKS)}]}


@pytest.mark.parametrize(
    ("behaviour", "kind", "final"),
    [
        (answering(429), "busy", False), (answering(529), "busy", False),
        (answering(503, **{"Retry-After": "1"}), "busy", False),
        (answering(500), "server", False), (answering(503), "server", False), (answering(408), "server", False),
        (answering(400), "refused", True), (answering(422), "refused", True), (answering(401), "refused", True),
        (answering(400, "blocked by the content_filter"), "filtered", True), (answering(404), "refused", True),
        (answering(200, '{"error": {"code": 429, "message": "slow down"}}'), "busy", False),
        (answering(wait_s=1.0), "timeout", False), (answering(text="<html>"), "malformed", False),
        (answering(text="[1]"), "malformed", False), (answering(text=f'"{"x" * 3000}"'), "oversized", True),
    ],
)  # fmt: skip
async def test_each_fault_of_an_endpoint_has_its_kind(behaviour: Any, kind: str, final: bool, fake_judge: Any) -> None:
    fake_judge.behaviour = behaviour
    pool = EndpointPool(EndpointOptions(urls=(fake_judge.url,), timeout_s=0.2, max_reply_bytes=2000))
    with pytest.raises(EndpointError) as fault:
        await pool.post("chat/completions", BODY)
    assert (fault.value.kind, fault.value.final) == (kind, final)
    fake_judge.behaviour = answering(text="{}")
    await pool.post("chat/completions", BODY)
    fake_judge.behaviour = behaviour
    with pytest.raises(EndpointError) as later:  # a key or an address that was good before is an outage now
        await pool.post("chat/completions", BODY)
    assert later.value.final is (
        final and (later.value.status in CONTENT_STATUSES or kind in ("filtered", "oversized"))
    )
    await pool.aclose()


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7), ("1.5", 1.5, 1.5), ("in an hour", 3500, 3601), ("soon", 0, 0),
        ("-3", 0, 0), ("\xb2", 0, 0), ("nan", 0, 0), ("1e99", 0, 0), (formatdate(0, usegmt=True), 0, 0),
    ],
)  # fmt: skip
async def test_a_server_may_ask_to_wait_in_seconds_or_until_a_date(
    header: str, low: float, high: float, fake_judge: Any
) -> None:
    if header == "in an hour":
        header = formatdate(time.time() + 3600, usegmt=True)
    fake_judge.behaviour = answering(429, **{"Retry-After": header})
    pool = EndpointPool(EndpointOptions(urls=(fake_judge.url,)))
    with pytest.raises(EndpointError) as fault:
        await pool.post("chat/completions", BODY)
    await pool.aclose()
    assert low <= fault.value.retry_after_s <= high


async def test_a_rate_limit_slows_the_client_down_and_leaves_nobody_out(fake_judge: Any) -> None:
    """A server of 4 requests each 0.25 s and 60 calls of which each may take 4 s: 15 windows, 3.75 s in all."""
    window = {"number": 0, "served": 0}

    async def four_each_window(judge: Any, request: web.Request) -> web.Response:
        number = int(time.monotonic() / 0.25)
        if number != window["number"]:
            window.update(number=number, served=0)
        if window["served"] >= 4:
            return web.Response(status=429, headers={"Retry-After": "0.1"})
        window["served"] += 1
        return web.json_response({"choices": [{"message": {"content": "YES"}}]})

    fake_judge.behaviour = four_each_window
    options = EndpointOptions(urls=(fake_judge.url,), max_in_flight=32, retries=2, backoff_s=0.01)
    client = ChatClient(options, "m")
    calls = (client.complete(user_message(BODY["messages"][0]["content"]), limit_s=4.0) for _ in range(60))  # type: ignore[index]
    replies = await asyncio.wait_for(asyncio.gather(*calls), 20)
    await client.aclose()
    assert [reply.text for reply in replies] == ["YES"] * 60
    assert client.retry.slots.limit < 16


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
