"""Gold answers of the sample data earn 1.0 through the whole path: parser, components, service, HTTP, judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from examples.rule_judge.server import start_rule_judge
from medix.response import format_response
from reward_fns import CompositeScore, ScoringInput, build_composite
from reward_fns.scorers.embedder import Vectors
from reward_fns.scorers.service import ScorerService

read_sample_set = pytest.importorskip("data_prep.sources.sample").read_sample_set


class FakeEncoder:
    """Finds all texts equally near."""

    async def encode(self, texts: Sequence[str]) -> Vectors:
        return np.ones((len(texts), 1), dtype=np.float32)

    async def aclose(self) -> None: ...


async def score_golds(say: Callable[[str], str]) -> tuple[list[tuple[str, CompositeScore]], dict[str, Any]]:
    """Answer and score of every reference and alias as `say` puts it, and the service's counts."""
    samples = [sample for split in ("train", "test") for sample in read_sample_set(split)]
    items = [
        ScoringInput(format_response(s.modality, "t", say(text)), s.reference, s.question, s.modality, s.aliases)
        for s in samples
        for text in (s.reference, *s.aliases)
    ]
    with start_rule_judge() as url:
        service = ScorerService({"judge": {"urls": [url]}}, FakeEncoder())
        composite = build_composite({"preset": "strict"}, service)
        scores = await asyncio.gather(*(composite.score(item) for item in items))
        stats = service.stats()
        await service.aclose()
    return [(item.response, score) for item, score in zip(items, scores, strict=True)], stats


async def test_gold_answers_and_their_aliases_earn_the_whole_reward_without_a_call() -> None:
    scores, stats = await score_golds(lambda text: text)
    assert len(scores) >= 100
    assert [response for response, score in scores if score.total != 1.0] == []
    assert stats.get("judge_requests", 0) == 0  # all match exactly


async def test_they_earn_it_from_the_judge_over_http_where_they_are_no_exact_match() -> None:
    scores, stats = await score_golds(lambda text: f"“{text}”")  # in quotes, which no comparison of texts takes off
    assert [response for response, score in scores if score.total != 1.0] == []
    assert all(score.verdict is not None and score.verdict.raw == "YES" for _, score in scores)
    assert stats["judge_requests"] >= 100
    assert stats["embed_encoded"] >= 100
