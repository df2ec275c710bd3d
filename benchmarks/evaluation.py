"""Throughput and memory of the evaluation: the stage that `medix eval generate` uses, against a mock server.

    python -m benchmarks.evaluation

Thumbnails and rows are written to disk, as in an evaluation. The server waits a fixed time for each request, so its own
limit is requests in flight / that time. Memory is what one process grows by while so many items go through.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from functools import cache
from io import BytesIO
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any
from unittest import mock

import typer
from PIL import Image

from benchmarks.mock_judge import running
from evaluation.backends import Answered, Decoding, Question
from evaluation.backends.endpoint import EndpointBackend
from evaluation.concurrency import run_bounded
from evaluation.generate import GenerateCounts, generate
from evaluation.item import Item
from evaluation.options import Asking
from evaluation.run_folder import RunFolder
from reward_fns.scorers.endpoints import EndpointOptions


@cache
def pictures() -> list[bytes]:
    """Return JPEGs of 224 x 224 that differ."""
    made = []
    for number in range(16):
        buffer = BytesIO()
        Image.effect_noise((224, 224), 20 + number).convert("RGB").save(buffer, "JPEG", quality=85)
        made.append(buffer.getvalue())
    return made


def items(count: int) -> Iterator[Item]:
    """Yield synthetic items, each with image bytes of its own."""
    shown = pictures()
    for number in range(count):
        image = bytes(bytearray(shown[number % len(shown)]))
        yield Item("sample", str(number), f"Question {number}?", "yes", images=(image,))


def seconds(backend: Any, count: int, width: int) -> float:
    """Return the seconds of the whole stage on `count` items, rows and thumbnails on disk included."""
    pictures()
    loaded = mock.patch("evaluation.generate.load_items", side_effect=[items(1), items(count)])
    with tempfile.TemporaryDirectory() as folder, loaded:
        start = time.perf_counter()
        counts = asyncio.run(answered(RunFolder(Path(folder)), backend, width))
        taken = time.perf_counter() - start
    assert counts.answered == count, counts
    return taken


async def answered(folder: RunFolder, backend: Any, width: int) -> GenerateCounts:
    async with aclosing(backend):
        return await generate(folder, backend, Asking("synthetic", ["sample"]), width)


class InstantBackend:
    """Answers at once, with the bound on questions in memory that the endpoint backend has."""

    def identity(self) -> dict[str, Any]:
        return {"model": "instant"}

    async def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        async def work(question: Question) -> Answered:
            await asyncio.sleep(0)
            return Answered(question, "yes")

        async for answered in run_bounded(questions, work, 64):
            yield answered

    async def aclose(self) -> None: ...


def memory_growth(count: int) -> float:
    """Return by how many MiB this process grows while `count` items go through."""
    peaks = []
    for passed in (20, count):
        seconds(InstantBackend(), passed, 64)
        peaks.append(getrusage(RUSAGE_SELF).ru_maxrss / 1024)
    return round(peaks[1] - peaks[0], 1)


def main(width: int = 16, wait_ms: float = 50, count: int = 800, memory: str = "100,5000,50000", grow: int = 0) -> None:
    """Measure with `width` requests in flight to a server that takes `wait_ms`; `memory` are numbers of items."""
    if grow:
        print(memory_growth(grow))
        return
    with running(wait_ms) as url:
        endpoint = EndpointBackend(EndpointOptions(urls=(url,), max_in_flight=width), "mock", Decoding(), 600)
        per_s = count / seconds(endpoint, count, width)
    command = [sys.executable, "-m", "benchmarks.evaluation", "--grow"]
    growth = {n: float(subprocess.check_output([*command, n])) for n in memory.split(",")}
    limit = width / (wait_ms / 1000)
    print(json.dumps({"per_s": round(per_s, 1), "server_limit_per_s": limit, "memory_growth_mib": growth}, indent=2))


if __name__ == "__main__":
    typer.run(main)
