"""Scores many rows at once with a composite made for the purpose: the work of `medix score`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reward_fns import AssumedScorers, Composite, build_composite
from reward_fns.contracts import NOT_APPLICABLE, Scorers
from reward_fns.rows import Row
from reward_fns.scorers.service import ScorerService

AT_ONCE = 512


def scorer_settings(urls: Sequence[str], model: str, embedder: str) -> dict[str, Any]:
    """What `medix score` sets under `medix.scorer`; an empty list of URLs means no judge, an empty embedder none."""
    return {
        "judge": {"urls": list(urls), "model": model},
        "embedder": {"kind": "sentence_transformers", "model": embedder} if embedder else {"kind": "none"},
        # One person waits at a terminal: an outage is told after half a minute, not after half an hour.
        "breaker": {"hold_limit_s": 30.0},
    }


async def score_rows(
    rows: Iterable[Row], config: Mapping[str, Any], scorer: Mapping[str, Any], put: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """`put` gets one JSON-able record a row, in order and as soon as it is there; returns the composite's table.

    Args:
        config: the mapping under `medix.reward`.
        scorer: the mapping under `medix.scorer`; the judge URL `rule-judge` is the rules of this package.

    Raises:
        ConfigError: the reward is misconfigured, or a scorer is needed that nobody named.
        DataError: a row is wrong; those before it have been put.
        ScorerError: a scorer failed.
    """
    source = iter(rows)
    service = _open_service(scorer)
    try:
        composite = build_composite(config, AssumedScorers(otherwise=service))
        while part := list(itertools.islice(source, AT_ONCE)):
            for record in await asyncio.gather(*(_record(row, composite, service) for row in part)):
                put(record)
    finally:
        if service is not None:
            await service.aclose()
    return composite.table()


def _open_service(scorer: Mapping[str, Any]) -> ScorerService | None:
    service = ScorerService(scorer)
    judge, embedder = service.options.judge, service.options.embedder
    return service if judge.urls or embedder.kind != "none" else None


async def _record(row: Row, composite: Composite, service: Scorers | None) -> dict[str, Any]:
    score = await composite.score(row.item, AssumedScorers(row.assume_judge, row.assume_similarity, service))
    flat = score.flat()
    values = {name: None if flat[name] == NOT_APPLICABLE else flat[name] for name in score.names}
    details = {name: dict(part.details) for name, part in score.components.items()}
    return {"sample_id": row.item.sample_id, "score": score.total, "acc": flat["acc"], **values, "details": details}
