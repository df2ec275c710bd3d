"""A judge that misbehaves on demand, over real HTTP, and an encoder that needs no model."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from medix.errors import ScorerError
from reward_fns.scorers.embedder import Vectors
from reward_fns.scorers.judge_prompt import read_fields
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest

Behaviour = Callable[["FakeJudge", web.Request], Awaitable[web.StreamResponse | None]]


def completion(text: Any, **extra: Any) -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **extra}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})


def ask(n: int, **changes: Any) -> JudgeRequest:
    return JudgeRequest(**{"reference": "reference", "candidate": f"good {n}", "question": "q?", **changes})


async def until(condition: Callable[[], Any], limit_s: float = 15.0) -> None:
    """Wait for what has to come, however slow the machine."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


class FakeServer:
    """One route over real HTTP, at the same port each time it is started."""

    path = ""

    def __init__(self) -> None:
        self.url = ""
        self.tls: ssl.SSLContext | None = None
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.post(self.path, self._answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self.tls).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError


class FakeJudge(FakeServer):
    """Says YES to candidates that start with `good`. `behaviour` may answer first; None leaves it to the rule.

    Where `key` or `model` is set, another one is refused as servers do: 401, 404.
    """

    path = "/v1/chat/completions"

    def __init__(self) -> None:
        super().__init__()
        self.key = self.model = ""
        self.behaviour: Behaviour | None = None
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "invalid key"}, status=401)
        if self.model and body["model"] != self.model:
            return web.json_response({"error": f"no model {body['model']}"}, status=404)
        candidate = (read_fields(body["messages"][0]["content"]) or {}).get("CANDIDATE", "")
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.asked[candidate] += 1
        if self.behaviour is not None:
            reply = await self.behaviour(self, request)
            if reply is not None:
                return reply
        self.answered[candidate] += 1
        return completion("YES" if candidate.startswith("good") else "NO")


class FakeEmbedder(FakeServer):
    """`/v1/embeddings` over HTTP, vectors of a hash. `behaviour` may answer first; None leaves it to the hash."""

    path = "/v1/embeddings"

    def __init__(self) -> None:
        super().__init__()
        self.behaviour: Callable[[list[str]], Awaitable[web.StreamResponse | None]] | None = None
        self.batches: list[list[str]] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        texts = (await request.json())["input"]
        self.batches.append(texts)
        reply = await self.behaviour(texts) if self.behaviour is not None else None
        return reply or web.json_response({"data": vectors_of(texts)})


def vectors_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"index": n, "embedding": hashed(text).tolist()} for n, text in enumerate(texts)]


def hashed(text: str) -> Vectors:
    """A vector of length 1 that the text decides."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    row = np.random.default_rng(seed).normal(size=8)
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


class FakeEncoder:
    """Vectors from a hash of the text. `broken` makes it fail; `delay_s` makes it slow."""

    def __init__(self) -> None:
        self.broken = False
        self.delay_s = 0.0
        self.batches: list[list[str]] = []

    async def encode(self, texts: Sequence[str]) -> Vectors:
        await asyncio.sleep(self.delay_s)
        if self.broken:
            raise ScorerError("FakeEncoder is broken.", "Mend it.")
        self.batches.append(list(texts))
        return np.stack([hashed(text) for text in texts])

    async def aclose(self) -> None: ...


@pytest.fixture
async def fake_judge() -> AsyncIterator[FakeJudge]:
    judge = FakeJudge()
    await judge.start()
    yield judge
    await judge.stop()


@pytest.fixture
async def fake_embedder() -> AsyncIterator[FakeEmbedder]:
    embedder = FakeEmbedder()
    await embedder.start()
    yield embedder
    await embedder.stop()


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(autouse=True)
async def close_services(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Close every service that a test made, at its end."""
    made: list[ScorerService] = []
    make = ScorerService.__init__

    def remember(self: ScorerService, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(ScorerService, "__init__", remember)
    yield
    for service in made:
        await service.aclose()


@pytest.fixture
def fast() -> Callable[..., dict[str, Any]]:
    """A scorer configuration whose waits are hundredths of a second."""

    def config(url: str, cache: str = "", **judge: Any) -> dict[str, Any]:
        return {
            "judge": {
                "urls": [url], "retries": 1, "backoff_s": 0.01, "backoff_max_s": 0.05, "timeout_s": 3.0,
                "max_reply_bytes": 20_000, "free_tokens": 0, **judge,
            },
            "hold_limit_s": 0.4,
            "on_refusal": "stop",
            "cache": {"path": cache},
            "embedder": {"kind": "none", "batch_wait_ms": 1, "retries": 1},
        }  # fmt: skip

    return config
