"""Scores many rows at once with a composite made for the purpose: the work of `medix score`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from medix.rule_judge import MODEL
from medix.scorer.service import ScorerService
from reward_fns import AssumedScorers, Composite, build_composite
from reward_fns.contracts import NOT_APPLICABLE, Scorers
from reward_fns.rows import Row

AT_ONCE = 512


@dataclass(frozen=True)
class JudgeChoice:
    """Which scorers to ask for what a row does not state. Empty means none."""

    urls: tuple[str, ...] = ()
    """Endpoints; the one entry `rule-judge` starts the embedded judge."""
    model: str = MODEL
    embedder: str = ""


async def score_rows(
    rows: Sequence[Row], config: Mapping[str, Any], choice: JudgeChoice
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The composite's table, and one JSON-able record a row, in order.

    Raises:
        ConfigError: the reward is misconfigured, or a scorer is needed that nobody named.
        ScorerError: a scorer failed.
    """
    with ExitStack() as stack:
        service = _open_service(choice, stack)
        try:
            composite = build_composite(config, AssumedScorers(otherwise=service))
            records: list[dict[str, Any]] = []
            for start in range(0, len(rows), AT_ONCE):
                part = rows[start : start + AT_ONCE]
                records += await asyncio.gather(*(_record(row, composite, service) for row in part))
        finally:
            if service is not None:
                await service.aclose()
    return composite.table(), records


def _open_service(choice: JudgeChoice, stack: ExitStack) -> ScorerService | None:
    urls = list(choice.urls)
    if urls == [MODEL]:
        from medix.rule_judge.server import start_rule_judge

        urls = [stack.enter_context(start_rule_judge())]
    if not urls and not choice.embedder:
        return None
    kind = "sentence_transformers" if choice.embedder else "none"
    judge = {"urls": urls, "model": choice.model}
    # One person waits at a terminal: an outage is told after half a minute, not after half an hour.
    breaker = {"hold_limit_s": 30.0}
    return ScorerService({"judge": judge, "embedder": {"kind": kind, "model": choice.embedder}, "breaker": breaker})


async def _record(row: Row, composite: Composite, service: Scorers | None) -> dict[str, Any]:
    score = await composite.score(row.item, AssumedScorers(row.assume_judge, row.assume_similarity, service))
    flat = score.flat()
    values = {name: None if flat[name] == NOT_APPLICABLE else flat[name] for name in score.names}
    details = {name: dict(part.details) for name, part in score.components.items()}
    return {"sample_id": row.item.sample_id, "score": score.total, "acc": flat["acc"], **values, "details": details}
