"""Text encoders: a sentence-transformers model in this process, or an OpenAI-compatible `/v1/embeddings` endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from medix.errors import ConfigError
from reward_fns.scorers.endpoints import EndpointError, EndpointOptions, EndpointPool

Vectors = npt.NDArray[np.float32]


class Encoder(Protocol):
    """`encode` gives [N, D] vectors of length 1, in the order of the texts; any error where it can not.

    A vector that is not finite or of another length is the text's fault as long as other texts have good ones.
    """

    async def encode(self, texts: Sequence[str]) -> Vectors: ...

    async def aclose(self) -> None: ...


def packaged_model(name: str) -> str:
    """`name` itself, or the folder of the model that a Python package of that name carries."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / "model" / "modules.json").is_file():
            return str(Path(folder) / "model")
    return name


class LocalEncoder:
    """A sentence-transformers model, loaded at construction, run in one thread of its own.

    Raises:
        ConfigError: the library or the model is not there.
    """

    def __init__(self, model: str, device: str = "cpu", batch_size: int = 32) -> None:
        try:
            from sentence_transformers import SentenceTransformer

            self._model: Any = SentenceTransformer(packaged_model(model), device=device)
        except (ImportError, OSError, ValueError) as error:
            fix = "install sentence-transformers, or name a folder or package in medix.scorer.embedder.model"
            raise ConfigError(f"an embedder {model!r}", f"{type(error).__name__}: {error}", fix) from error
        self._batch_size = batch_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    def encode_now(self, texts: Sequence[str]) -> Vectors:
        """The blocking form of `encode`."""
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    async def encode(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.encode_now, texts)

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False)


class EndpointEncoder:
    """Vectors from `/v1/embeddings`. `extra` goes into the request body as it is."""

    def __init__(self, options: EndpointOptions, model: str, extra: Mapping[str, Any] | None = None) -> None:
        self.pool = EndpointPool(options, "medix.scorer.embedder")
        self._fields = {"model": model, **(extra or {})}

    async def encode(self, texts: Sequence[str]) -> Vectors:
        reply = await self.pool.post("/v1/embeddings", {**self._fields, "input": list(texts)})
        try:
            rows = sorted(reply.data["data"], key=lambda row: row["index"])
            vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._malformed(f"{type(error).__name__} on {error}") from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise self._malformed(f"vectors of shape {vectors.shape}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = np.isfinite(lengths) & (lengths > 0)
        return np.asarray(vectors / np.where(usable, lengths, 1.0), dtype=np.float32)

    @staticmethod
    def _malformed(found: str) -> EndpointError:
        expected = "one vector for each text"
        return EndpointError(expected, found, "check that medix.scorer.embedder.model is an embedder", "malformed")

    async def aclose(self) -> None:
        await self.pool.aclose()
