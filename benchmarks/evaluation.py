"""Throughput and memory of the evaluation's client against a mock server, beside the process-pool way, in one run.

    python benchmarks/evaluation.py                 # both ways, then memory
    python benchmarks/evaluation.py --memory-only

The process-pool way is written from its description: a pool of processes, each sample pickled to one with its decoded
image, which encodes it as JPEG, makes a client of its own and sends one blocking request. Ours is the stage
`medix eval generate` uses, with thumbnails and rows written to disk. Both have the same number of requests in flight.
The server waits a fixed time for each request, so its own limit is requests in flight / that time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from PIL import Image

# This file has the name of the package that it measures: its own folder must not be searched for it.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

from evaluation.backends import Answered, Decoding, Question  # noqa: E402
from evaluation.backends.endpoint import EndpointBackend  # noqa: E402
from evaluation.generate import GenerateOptions, generate  # noqa: E402
from evaluation.item import Item  # noqa: E402
from evaluation.run_folder import RunFolder  # noqa: E402
from evaluation.task import Task  # noqa: E402
from reward_fns.scorers.endpoints import EndpointOptions  # noqa: E402

TASK = Task("benchmark", 1, "vlm", "sample", "synthetic items")


def serve(port_pipe: Any, wait_s: float) -> None:
    """The mock server's process: reads each request whole, waits, answers."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(wait_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "mock", "choices": [choice]}
        return web.json_response(body | {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})

    async def main() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port_pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


def picture(number: int) -> bytes:
    """A JPEG of 224 x 224 that differs from number to number."""
    buffer = BytesIO()
    Image.effect_noise((224, 224), 20 + number % 50).convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


PICTURES = [picture(number) for number in range(16)]


def items(count: int) -> Iterator[Item]:
    """Synthetic items; the image bytes are copied so that each item holds its own."""
    for number in range(count):
        image = bytes(bytearray(PICTURES[number % len(PICTURES)]))
        yield Item("benchmark", str(number), f"Question {number}?", "yes", images=(image,))


def pool_worker(url: str, question: str, image: Image.Image) -> str:
    """One sample of the process-pool way."""
    from openai import OpenAI

    buffer = BytesIO()
    image.save(buffer, "JPEG")
    address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": question}]
    client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=180)
    reply = client.chat.completions.create(
        model="mock", messages=[{"role": "user", "content": content}], temperature=0.0, max_tokens=2048
    )
    return reply.choices[0].message.content or ""


def process_pool_way(url: str, count: int, width: int) -> float:
    """Seconds for `count` samples; starting the processes and their imports is not counted."""
    decoded = [(item.question, Image.open(BytesIO(item.images[0])).convert("RGB")) for item in items(count)]
    with ProcessPoolExecutor(width, mp_context=multiprocessing.get_context("fork")) as pool:
        warm = [pool.submit(pool_worker, url, *decoded[0]) for _ in range(2 * width)]
        assert all(future.result() == "yes" for future in warm)
        start = time.perf_counter()
        futures = [pool.submit(pool_worker, url, question, image) for question, image in decoded]
        assert all(future.result() == "yes" for future in futures)
        return time.perf_counter() - start


def ours(backend: Any, count: int, width: int) -> float:
    """Seconds of the whole stage for `count` items, rows and thumbnails on disk included."""
    options = GenerateOptions((TASK,), "bare", Decoding(), width=width)
    made = mock.patch("evaluation.generate.load_items", return_value=items(count))
    with tempfile.TemporaryDirectory() as folder, made:
        start = time.perf_counter()
        counts = asyncio.run(generate(RunFolder(Path(folder)), backend, options))
        seconds = time.perf_counter() - start
    assert counts.answered == count, counts
    return seconds


class InstantBackend:
    """Answers at once, with the bound on questions in memory that the endpoint backend has; for the memory figure."""

    def identity(self) -> dict[str, Any]:
        return {"model": "instant"}

    async def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        from evaluation.bounded import run_bounded

        async def work(question: Question) -> Answered:
            await asyncio.sleep(0)
            return Answered(question, "yes")

        async for answered in run_bounded(questions, work, 64):
            yield answered

    async def aclose(self) -> None:
        return None


def memory_in_child(count: int, pipe: Any) -> None:
    """Growth of the resident memory while `count` items go through, MiB."""
    process = psutil.Process()
    ours(InstantBackend(), 20, 64)
    before, peak, step = process.memory_info().rss, 0, max(1, count // 50)
    original = items

    def watched(number: int) -> Iterator[Item]:
        nonlocal peak
        for place, item in enumerate(original(number)):
            if place % step == 0:
                peak = max(peak, process.memory_info().rss)
            yield item

    globals()["items"] = watched
    ours(InstantBackend(), count, 64)
    pipe.send((max(peak, process.memory_info().rss) - before) / 2**20)


def in_child(target: Any, *arguments: Any) -> Any:
    """What a fresh process sends back."""
    context = multiprocessing.get_context("spawn")
    ours_end, child_end = context.Pipe()
    child = context.Process(target=target, args=(*arguments, child_end))
    child.start()
    answer = ours_end.recv()
    child.join()
    return answer


def throughput(width: int, wait_s: float, count: int) -> dict[str, float]:
    """Both ways against one server; figures are requests a second and their ratio."""
    context = multiprocessing.get_context("spawn")
    ours_end, child_end = context.Pipe()
    server = context.Process(target=serve, args=(child_end, wait_s), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours_end.recv()}"
    pool = count / process_pool_way(url, count, width)
    options = EndpointOptions(urls=(url,), max_in_flight=width)
    async_way = 4 * count / ours(EndpointBackend(options, "mock", Decoding(), 600), 4 * count, width)
    server.terminate()
    limit = width / wait_s
    return {
        "in_flight": width,
        "server_limit_per_s": round(limit, 1),
        "process_pool_per_s": round(pool, 1),
        "ours_per_s": round(async_way, 1),
        "ours_to_process_pool": round(async_way / pool, 2),
        "ours_to_server_limit": round(async_way / limit, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="requests in flight")
    parser.add_argument("--wait", type=float, default=0.05, help="seconds the server takes for a request")
    parser.add_argument(
        "--count", type=int, default=200, help="samples of the process-pool way; ours gets four times that"
    )
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[100, 5000, 50_000], help="items for the memory figure"
    )
    parser.add_argument("--memory-only", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    if not arguments.memory_only:
        result["throughput"] = throughput(arguments.width, arguments.wait, arguments.count)
    result["memory_growth_mib"] = {str(n): round(in_child(memory_in_child, n), 1) for n in arguments.memory}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
