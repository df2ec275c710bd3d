"""Throughput and memory of the evaluation: the stage that `medix eval generate` uses, against a mock server.

    python benchmarks/evaluation.py

Thumbnails and rows are written to disk, as in an evaluation. The server waits a fixed time for each request, so its own
limit is requests in flight / that time. Memory is what one process grows by while so many items go through.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from PIL import Image

# This file has the name of the package that it measures: its own folder must not be searched for it.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

from benchmarks.mock_judge import running  # noqa: E402
from evaluation.backends import Answered, Decoding, Question  # noqa: E402
from evaluation.backends.endpoint import EndpointBackend  # noqa: E402
from evaluation.concurrency import run_bounded  # noqa: E402
from evaluation.generate import GenerateOptions, generate  # noqa: E402
from evaluation.item import Item  # noqa: E402
from evaluation.run_folder import RunFolder  # noqa: E402
from evaluation.task import Task  # noqa: E402
from reward_fns.scorers.endpoints import EndpointOptions  # noqa: E402

TASK = Task("benchmark", "sample", "synthetic items")


@cache
def pictures() -> list[bytes]:
    """Return JPEGs of 224 x 224 that differ."""
    made = []
    for number in range(16):
        buffer = BytesIO()
        Image.effect_noise((224, 224), 20 + number).convert("RGB").save(buffer, "JPEG", quality=85)
        made.append(buffer.getvalue())
    return made


def items(count: int, process: psutil.Process | None = None, peak: list[int] | None = None) -> Iterator[Item]:
    """Yield synthetic items, each with image bytes of its own; note the resident memory on the way."""
    shown = pictures()
    for number in range(count):
        if process is not None and peak is not None and number % max(1, count // 50) == 0:
            peak.append(process.memory_info().rss)
        image = bytes(bytearray(shown[number % len(shown)]))
        yield Item("benchmark", str(number), f"Question {number}?", "yes", images=(image,))


def seconds(backend: Any, made: Iterable[Item], count: int, width: int) -> float:
    """Return the seconds of the whole stage, rows and thumbnails on disk included."""
    options, _ = GenerateOptions((TASK,), width=width), pictures()
    loaded = mock.patch("evaluation.generate.load_items", side_effect=[items(1), iter(made)])
    with tempfile.TemporaryDirectory() as folder, loaded:
        start = time.perf_counter()
        counts = asyncio.run(generate(RunFolder(Path(folder)), backend, options))
        taken = time.perf_counter() - start
    assert counts.answered == count, counts
    return taken


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
    process = psutil.Process()
    seconds(InstantBackend(), items(20), 20, 64)
    before, peak = process.memory_info().rss, [0]
    seconds(InstantBackend(), items(count, process, peak), count, 64)
    return round((max(*peak, process.memory_info().rss) - before) / 2**20, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="requests in flight")
    parser.add_argument("--wait-ms", type=float, default=50, help="milliseconds the server takes for a request")
    parser.add_argument("--count", type=int, default=800, help="samples of the throughput")
    parser.add_argument("--memory", type=int, nargs="*", default=[100, 5000, 50_000], help="items for the memory")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.grow is not None:
        print(memory_growth(o.grow))
        sys.exit()
    with running(o.wait_ms) as url:
        endpoint = EndpointBackend(EndpointOptions(urls=(url,), max_in_flight=o.width), "mock", Decoding(), 600)
        per_s = o.count / seconds(endpoint, items(o.count), o.count, o.width)
    command = [sys.executable, __file__, "--grow"]
    growth = {n: float(subprocess.check_output([*command, str(n)])) for n in o.memory}
    limit = o.width / (o.wait_ms / 1000)
    print(json.dumps({"per_s": round(per_s, 1), "server_limit_per_s": limit, "memory_growth_mib": growth}, indent=2))
