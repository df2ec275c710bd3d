"""The scorer service: one judge, one embedder, their cache and their breakers, for one job and one event loop.

    service = ScorerService({"judge": {"urls": ["http://127.0.0.1:8000"], "model": "my-judge"}})
    verdict = await service.judge(JudgeRequest("pneumonia", "lung infection", "Diagnosis?"))
    await service.aclose()

It is plain asyncio: a Ray actor, a server or a test wraps it as it is. The parts open when they are first asked for, so
that a run without an embedder loads no model; `open(...)` does it at once, to fail at the start instead.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from medix.options import Share, read_options
from reward_fns.scorers.breaker import BreakerOptions, CircuitBreaker
from reward_fns.scorers.cache import CacheOptions, VerdictCache
from reward_fns.scorers.embedder import Embedder, EmbedderOptions
from reward_fns.scorers.encoders import Encoder
from reward_fns.scorers.judge import Judge, JudgeOptions
from reward_fns.scorers.types import JudgeRequest, Similarity, Verdict
from reward_fns.telemetry import percentile


@dataclass(frozen=True)
class ServiceOptions:
    """Everything under `medix.scorer`."""

    judge: JudgeOptions = field(default_factory=JudgeOptions)
    embedder: EmbedderOptions = field(default_factory=EmbedderOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    on_refusal: Literal["stop", "drop_group"] = "drop_group"
    """What a judge's refusal of one sample's content does: see `RefusedSample`."""
    max_refused_share: Share = 0.02
    """Share of the calls since the start (of 100 where there were fewer) that may be refused before the run stops."""


class ScorerService:
    """Implements `Scorers`.

    Args:
        config: the plain mapping under `medix.scorer`.
        encoder: stands in for the configured embedder's model, for tests.

    Raises:
        ConfigError: an option is unknown or of the wrong type.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, encoder: Encoder | None = None) -> None:
        self.options = read_options(ServiceOptions, config, "medix.scorer")
        self._encoder = encoder
        self._judge: Judge | None = None
        self._embedder: Embedder | None = None
        self._cache: VerdictCache | None = None

    @property
    def at_once(self) -> int:
        """Responses to work on at once: a quarter more than the calls in flight, so that no slot waits for one."""
        return self.options.judge.max_in_flight * 5 // 4 + 1

    def open(self, needs: Iterable[str]) -> None:
        """Open the parts named (`judge`, `similarity`), so that what is misconfigured fails now.

        Raises:
            ConfigError: a URL, key, prompt, cache file or model is missing.
        """
        if "judge" in needs and self._judge is None:
            self._cache = VerdictCache(self.options.cache)
            self._judge = Judge(self.options.judge, self._cache, self.options.breaker)
        if "similarity" in needs and self._embedder is None:
            self._embedder = Embedder(self.options.embedder, self.options.breaker, self._encoder)

    async def judge(self, request: JudgeRequest) -> Verdict:
        """See `medix.scorer.judge.Judge.judge`."""
        self.open(("judge",))
        assert self._judge is not None
        return await self._judge.judge(request)

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        """See `medix.scorer.embedder.Embedder.similarity`."""
        self.open(("similarity",))
        assert self._embedder is not None
        return await self._embedder.similarity(reference, candidate)

    def uncached(self) -> ScorerService:
        """A service of the same options that knows no earlier verdict and leaves none. Close it by itself."""
        service = ScorerService(encoder=self._encoder)
        service.options = replace(self.options, cache=CacheOptions())
        return service

    @property
    def judge_faults(self) -> int:
        """Requests to the judge that failed, or whose reply was no verdict, since the start.

        All were repeated but refusals of what was sent.
        """
        return self._judge.patience.failures + self._judge.client.pool.retried if self._judge else 0

    def stats(self) -> dict[str, float]:
        """Counts since the start, seconds, and latency percentiles of recent calls; always the same keys."""
        judge, embedder = self._judge, self._embedder
        latencies = sorted(judge.latencies_s) if judge else []
        return {
            "judge_requests": judge.requests if judge else 0,
            "judge_calls": judge.calls if judge else 0,
            "judge_cache_hits": judge.cache_hits if judge else 0,
            "judge_coalesced": judge.coalesced if judge else 0,
            "judge_failures": judge.patience.failures if judge else 0,
            "judge_unparsed": judge.unparsed if judge else 0,
            "judge_retries": judge.client.pool.retried if judge else 0,
            "judge_peak_in_flight": judge.client.pool.peak_in_flight if judge else 0,
            "judge_prompt_tokens": judge.prompt_tokens if judge else 0,
            "judge_completion_tokens": judge.completion_tokens if judge else 0,
            **{f"judge_p{rank}_s": percentile(latencies, rank) if latencies else 0.0 for rank in (50, 95, 99)},
            **_breaker_stats("judge", judge.breaker if judge else None),
            "cache_entries": len(self._cache) if self._cache else 0,
            "embed_texts": embedder.texts if embedder else 0,
            "embed_encoded": embedder.encoded if embedder else 0,
            "embed_batches": embedder.batches if embedder else 0,
            "embed_encoder_s": embedder.seconds if embedder else 0.0,
            "embed_failures": embedder.patience.failures if embedder else 0,
            **_breaker_stats("embed", embedder.breaker if embedder else None),
        }

    async def aclose(self) -> None:
        """Close sessions, threads and the cache file. Calls in flight are cancelled."""
        if self._judge is not None:
            await self._judge.aclose()
        if self._embedder is not None:
            await self._embedder.aclose()
        if self._cache is not None:
            self._cache.close()
        self._judge = self._embedder = self._cache = None


def relax_collector() -> None:
    """Let Python's cycle collector run rarely in this process: call it where a process does nothing but score.

    Thousands of calls in flight are alive and acyclic; walking over them again and again costs as much as the scoring.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _breaker_stats(name: str, breaker: CircuitBreaker | None) -> dict[str, float]:
    return {
        f"{name}_breaker_opened": breaker.opened if breaker else 0,
        f"{name}_breaker_open": float(breaker.is_open) if breaker else 0.0,
        f"{name}_held_s": breaker.held_s if breaker else 0.0,
    }
