"""The scorer service: one judge, one embedder and their cache, for one job and one event loop.

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

from medix.options import NotNegative, Share, read_options
from reward_fns.scorers.cache import CacheOptions, VerdictCache
from reward_fns.scorers.embedder import Embedder, EmbedderOptions, Encoder
from reward_fns.scorers.judge import Judge, JudgeOptions, Refusals
from reward_fns.scorers.types import JudgeRequest, Similarity, Verdict

JUDGE_COUNTS = ("requests", "calls", "cache_hits", "coalesced", "unparsed", "prompt_tokens", "completion_tokens")
EMBED_COUNTS = ("texts", "encoded", "batches", "seconds")
RETRY_COUNTS = ("failures", "outages", "held_s", "is_down")


@dataclass(frozen=True)
class ServiceOptions:
    """Everything under `medix.scorer`."""

    judge: JudgeOptions = field(default_factory=JudgeOptions)
    embedder: EmbedderOptions = field(default_factory=EmbedderOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)
    hold_limit_s: NotNegative = 1800.0
    """Seconds that a scorer which is down is waited for before the run stops; 0 waits for none."""
    on_refusal: Literal["stop", "drop_group"] = "drop_group"
    """What a scorer's refusal of one sample's content does: see `RefusedSample`."""
    max_refused_share: Share = 0.02
    """Share of the samples since the start (of 100 where there were fewer) that may be refused before the run stops."""


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
        o = self.options
        if "judge" in needs and self._judge is None:
            self._cache = VerdictCache(o.cache)
            self._judge = Judge(o.judge, self._cache, o.hold_limit_s, Refusals(o.on_refusal, o.max_refused_share))
        if "similarity" in needs and self._embedder is None:
            refusals = Refusals(o.on_refusal, o.max_refused_share)
            self._embedder = Embedder(o.embedder, o.hold_limit_s, refusals, self._encoder)

    async def judge(self, request: JudgeRequest) -> Verdict:
        """See `Judge.judge`."""
        self.open(("judge",))
        assert self._judge is not None
        return await self._judge.judge(request)

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        """See `Embedder.similarity`."""
        self.open(("similarity",))
        assert self._embedder is not None
        return await self._embedder.similarity(reference, candidate)

    def uncached(self) -> ScorerService:
        """Return a service of the same options that knows no earlier verdict and leaves none. Close it by itself."""
        service = ScorerService(encoder=self._encoder)
        service.options = replace(self.options, cache=CacheOptions())
        return service

    @property
    def judge_faults(self) -> int:
        """Requests to the judge that failed, or whose reply was no verdict, since the start; no refused samples."""
        return self._judge.retry.failures if self._judge else 0

    def stats(self) -> dict[str, float]:
        """Return counts and seconds since the start, of the parts that are open."""
        found: dict[str, float] = {}
        for part, name, counts in ((self._judge, "judge", JUDGE_COUNTS), (self._embedder, "embed", EMBED_COUNTS)):
            if part is not None:
                found |= {f"{name}_{count}": getattr(part, count) for count in counts}
                found |= {f"{name}_{count}": float(getattr(part.retry, count)) for count in RETRY_COUNTS}
                found |= {f"{name}_refused": part.refusals.count, f"{name}_peak_in_flight": part.retry.slots.peak}
        return found | ({"cache_entries": len(self._cache)} if self._cache is not None else {})

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
