"""Gold answers of the sample data earn 1.0 through the whole path: parser, components, service, HTTP, judge."""

from __future__ import annotations

import asyncio

import pytest

from medix.response import format_response
from medix.rule_judge.server import start_rule_judge
from medix.scorer.service import ScorerService
from reward_fns import ScoringInput, build_composite

read_sample_set = pytest.importorskip("data_prep.sources.sample").read_sample_set


async def test_gold_answers_and_their_aliases_earn_the_whole_reward() -> None:
    samples = [sample for split in ("train", "test") for sample in read_sample_set(split)]
    with start_rule_judge() as url:
        service = ScorerService({"judge": {"urls": [url]}, "embedder": {"kind": "none"}})
        composite = build_composite({"preset": "strict"}, service)
        items = [
            ScoringInput(format_response(s.modality, "t", text), s.answer, s.question, s.modality, s.aliases)
            for s in samples
            for text in (s.answer, *s.aliases)
        ]
        scores = await asyncio.gather(*(composite.score(item) for item in items))
        await service.aclose()
    assert len(items) >= 100
    assert [item for item, score in zip(items, scores, strict=True) if score.total != 1.0] == []
