"""One real request through our own client, so that what is announced is what a run will meet."""

from __future__ import annotations

import asyncio
from typing import Any

from medix.errors import ScorerError
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest

PATIENT_ENOUGH = {"retries": 2, "timeout_s": 300.0}
"""The first request may compile kernels."""
EMBEDDER_EXTRA = {"truncate_prompt_tokens": -1}
"""vLLM refuses a text over the model's length unless it is told to cut it, as sentence-transformers does unasked."""
LONG_TEXT = "consolidation of the left lower lobe, " * 400


def probe_judge(url: str, model: str, api_key_env: str) -> str:
    """Ask for one verdict.

    Raises:
        ScorerError: none came back, or not YES or NO. Whether it is right is for `medix preflight` to ask.
    """
    judge = {"urls": [url], "model": model, "api_key_env": api_key_env, **PATIENT_ENOUGH}

    async def ask(service: ScorerService) -> str:
        verdict = await service.judge(
            JudgeRequest(question="Which organ is shown?", reference="liver", candidate="liver.")
        )
        return f"{model} answered {'YES' if verdict.correct else 'NO'} in {verdict.latency_s:.2f} s"

    return asyncio.run(_with_service({"judge": judge}, ask))


def probe_embedder(url: str, model: str, api_key_env: str) -> str:
    """Ask for the similarity of a short text to itself, and to one that is longer than any encoder reads.

    Raises:
        ScorerError: no vectors came back, or a text is not like itself.
    """
    embedder = {
        **{"kind": "endpoint", "urls": [url], "model": model, "api_key_env": api_key_env, "max_chars": len(LONG_TEXT)},
        **{"extra": EMBEDDER_EXTRA, **PATIENT_ENOUGH},
    }

    async def ask(service: ScorerService) -> str:
        same = (await service.similarity("pneumonia", "pneumonia ")).cosine
        long = (await service.similarity("pneumonia", LONG_TEXT)).cosine
        if same < 0.99 or not long < same:
            raise ScorerError("a text to be most like itself", f"cosine {same:.2f}", "serve an embedder")
        return f"{model} gives cosine {same:.2f} to a text itself, {long:.2f} to a text of {len(LONG_TEXT)} characters"

    return asyncio.run(_with_service({"embedder": embedder}, ask))


async def _with_service(scorer: dict[str, Any], ask: Any) -> str:
    # No holding: a server that can not answer now is not announced.
    service = ScorerService({**scorer, "cache": {}, "hold_limit_s": 0.0})
    try:
        return str(await ask(service))
    finally:
        await service.aclose()
