"""A fake model and judge on a real socket, and the wiring of a small run."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

Reply = Callable[[str, int], "str | int | None"]
"""(prompt, how often it was asked) -> text, an HTTP status, or None to hang."""


class FakeServer:
    """An OpenAI-compatible endpoint in a thread. `reply` may be exchanged while it runs."""

    def __init__(self) -> None:
        self.reply: Reply = lambda prompt, asked: "yes"
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._runner = runner
        self._ready.set()
        self._loop.run_forever()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else json.dumps(content)
        self.asked[prompt] += 1
        reply = self.reply(prompt, self.asked[prompt])
        if reply is None:
            await asyncio.sleep(30)
        if isinstance(reply, int):
            return web.json_response(
                {"error": {"message": "over the context length" if reply == 400 else "no"}}, status=reply
            )
        choice = {"message": {"content": reply}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 2}})

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def fake_judge() -> Iterator[FakeServer]:
    server = FakeServer()
    server.reply = lambda prompt, asked: "YES"
    yield server
    server.stop()


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A PubMedQA folder of twelve rows in the real schema, two to an abstract; the right answer is always yes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "pubid": 100 + n,
            "question": f"Does treatment {n} help?",
            "context": {"contexts": [f"Abstract {n // 2}."], "labels": ["RESULTS"], "meshes": []},
            "long_answer": "It does.",
            "final_decision": "yes",
        }
        for n in range(12)
    ]
    folder = tmp_path / "pubmedqa" / "pqa_labeled"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    return folder.parent
