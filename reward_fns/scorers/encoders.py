"""Text encoders: a sentence-transformers model in this process, or an OpenAI-compatible `/v1/embeddings` endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from medix.errors import ConfigError
from reward_fns.scorers.endpoints import EndpointOptions, EndpointPool
from reward_fns.scorers.retry import EndpointError

Vectors = npt.NDArray[np.float32]


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

        self.threads = threads or max(1, len(os.sched_getaffinity(0)) // 4)
        self._batch_size = batch_size
        # OpenMP counts its threads for each calling thread, so the number is set in the one that encodes.
        setting = (torch.set_num_threads, (self.threads,))
        self._thread = ThreadPoolExecutor(1, "embedder", *setting)

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
