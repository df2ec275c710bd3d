"""The service when all is well: coalescing, cache, bounds, least-loaded endpoints, probabilities, micro-batches."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from medix.errors import ConfigError, MedixError, ScorerError
from medix.rule_judge.server import start_rule_judge
from medix.scorer.cache import CacheOptions, VerdictCache
from medix.scorer.chat import ChatClient, Sampling, user_message
from medix.scorer.endpoints import EndpointError, EndpointOptions
from medix.scorer.service import ScorerService
from medix.scorer.types import JudgeRequest, Verdict
from medix.scorer.verdict import parse_verdict, yes_probability


def ask(n: int, **changes: Any) -> JudgeRequest:
    return JudgeRequest(**{"gold": "reference", "answer": f"good {n}", "question": "q?", **changes})


async def test_equal_questions_in_flight_share_one_call_and_later_ones_the_cache(fake_judge: Any, fast: Any) -> None:
    service = ScorerService(fast(fake_judge.url))
    verdicts = await asyncio.gather(*(service.judge(ask(n % 3)) for n in range(30)))
    again = await service.judge(ask(0))
    stats = service.stats()
    await service.aclose()
    assert sum(fake_judge.asked.values()) == 3
    assert all(verdict.correct for verdict in verdicts)
    assert again.cached
    assert (stats["judge_calls"], stats["judge_coalesced"], stats["judge_cache_hits"]) == (3, 27, 1)


@pytest.mark.parametrize(
    "change",
    [{"gold": "other"}, {"question": "other?"}, {"question": None}, {"aliases": ("x",)}, {"parse": "substring"}],
)
async def test_whatever_the_judge_sees_is_in_the_cache_key(change: Any, fake_judge: Any, fast: Any) -> None:
    service = ScorerService(fast(fake_judge.url))
    await service.judge(ask(0))
    verdict = await service.judge(ask(0, **change))
    await service.aclose()
    assert not verdict.cached


async def test_another_model_shares_no_verdicts(fake_judge: Any, fast: Any, tmp_path: Any) -> None:
    for model in ("one", "two", "one"):
        service = ScorerService(fast(fake_judge.url, cache=str(tmp_path / "c.sqlite"), model=model))
        await service.judge(ask(0))
        await service.aclose()
    assert [body["model"] for body in fake_judge.bodies] == ["one", "two"]


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
    await service.aclose()
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
    await service.aclose()
    assert min(shares) >= 10
    assert sum(fake_judge.asked.values()) == shares[0] + 20


async def test_the_key_comes_from_the_environment_and_is_in_no_message(
    fake_judge: Any, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_JUDGE_KEY", "s3cret-value")
    service = ScorerService(fast(fake_judge.url, api_key_env="FAKE_JUDGE_KEY"))
    await service.judge(ask(0))
    assert fake_judge.headers[0]["Authorization"] == "Bearer s3cret-value"

    async def refuse(judge: Any, request: web.Request) -> web.Response:
        return web.Response(status=401)

    fake_judge.behaviour = refuse
    fresh = ScorerService(fast(fake_judge.url, api_key_env="FAKE_JUDGE_KEY"))
    with pytest.raises(ScorerError) as fault:
        await fresh.judge(ask(1))
    assert "s3cret" not in str(fault.value)
    assert "FAKE_JUDGE_KEY" in str(fault.value)
    await service.aclose()
    await fresh.aclose()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"judge": {"urls": []}}, "medix.scorer.judge.urls"),
        ({"judge": {"urls": ["localhost:1"]}}, "http"),
        ({"judge": {"urls": ["http://h"], "api_key_env": "NO_SUCH_VARIABLE"}}, "NO_SUCH_VARIABLE"),
        ({"judge": {"urls": ["http://h"], "promt": "x"}}, "did you mean 'prompt'"),
        ({"judge": {"urls": ["http://h"], "timeout_s": "soon"}}, "timeout_s"),
        ({"judge": {"urls": ["http://h"], "timeout_s": math.inf}}, "timeout_s"),
        ({"judge": {"urls": ["http://h"], "prompt": "/none.txt"}}, "/none.txt"),
        ({"judge": {"urls": ["http://h"]}, "cahce": {}}, "did you mean 'cache'"),
    ],
)
def test_a_wrong_setting_fails_at_the_start(config: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ScorerService(config).open(("judge",))


async def test_constrained_decoding_steps_down_where_the_server_refuses_it(fake_judge: Any, fast: Any) -> None:
    async def refuse_choice(judge: Any, request: web.Request) -> web.Response | None:
        body = judge.bodies[-1]
        if "structured_outputs" in body:
            return web.Response(status=400, text="unknown field structured_outputs")
        if "response_format" in body:
            return web.json_response({"choices": [{"message": {"content": '{"verdict": "YES"}'}}]})
        return None

    fake_judge.behaviour = refuse_choice
    service = ScorerService(fast(fake_judge.url))
    verdict = await service.judge(ask(0))
    await service.judge(ask(1))
    await service.aclose()
    assert verdict.correct
    assert ["structured_outputs" in body for body in fake_judge.bodies] == [True, False, False]


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

    error = EndpointError("a", "b", "c", "busy", 429, 2.0)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, MedixError)
    assert (copy.kind, copy.status, copy.retry_after_s, str(copy)) == ("busy", 429, 2.0, str(error))


def test_the_cache_is_bounded_in_memory_and_on_disk(tmp_path: Any) -> None:
    cache = VerdictCache(CacheOptions(path=str(tmp_path / "c.sqlite"), max_entries=10, max_stored=50))
    for n in range(100):
        cache.put(n.to_bytes(32, "big"), Verdict(n % 2 == 0, "YES"))
    assert len(cache) == 10
    assert cache.get((0).to_bytes(32, "big")) is not None  # gone from memory, found in the file
    assert cache.get((60).to_bytes(32, "big")) is None  # the file took no more after 50
    assert cache.get((99).to_bytes(32, "big")) is not None
    cache.close()


def test_a_file_that_is_no_cache_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("x" * 4096)
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        VerdictCache(CacheOptions(path=str(path)))


async def test_texts_are_encoded_once_in_few_batches(fake_encoder: Any) -> None:
    config = {"embedder": {"batch_wait_ms": 2, "batch_size": 4, "max_cached": 30}}
    service = ScorerService(config, encoder=fake_encoder)
    pairs = [("gold", f"answer {n % 10}") for n in range(50)]
    found = await asyncio.gather(*(service.similarity(*pair) for pair in pairs))
    await service.similarity("gold", "answer 3")
    encoded = [text for batch in fake_encoder.batches for text in batch]
    assert sorted(encoded) == sorted(["gold", *(f"answer {n}" for n in range(10))])
    assert len(fake_encoder.batches) == 1
    left, right = await fake_encoder.encode(["gold", "answer 7"])
    assert found[7].cosine == pytest.approx(float(np.dot(left, right)), abs=1e-6)
    await asyncio.gather(*(service.similarity("gold", f"more {n}") for n in range(200)))
    assert len(service._embedder._cache) <= 30  # type: ignore[union-attr]
    await service.aclose()


async def test_a_cancelled_caller_does_not_take_the_verdict_from_the_others(fake_judge: Any, fast: Any) -> None:
    async def slow(judge: Any, request: web.Request) -> None:
        await asyncio.sleep(0.05)

    fake_judge.behaviour = slow
    service = ScorerService(fast(fake_judge.url))
    first, second = (asyncio.create_task(service.judge(ask(0))) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await second).correct
    await service.aclose()


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


def test_it_works_on_uvloop_which_ray_uses_for_its_actors() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def judge_ten() -> list[Verdict]:
        service = ScorerService({"judge": {"urls": [url]}, "embedder": {"kind": "none"}})
        verdicts = await asyncio.gather(*(service.judge(JudgeRequest("mri", f"answer {n}")) for n in range(10)))
        await service.aclose()
        return verdicts

    with start_rule_judge() as url:
        loop = uvloop.new_event_loop()
        assert len(loop.run_until_complete(judge_ten())) == 10
        loop.close()
