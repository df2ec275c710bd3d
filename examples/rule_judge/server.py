"""The rule-based judge as an OpenAI-compatible server, so that a demo or a test runs the real client against it.

It reads the delimited fields of our own judge prompt (`recipes/medix/prompts/judge.txt`) and replies YES or NO. It is
not a language model, and says so: a prompt without those fields is HTTP 400.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from medix.errors import ScorerError
from medix.processes import is_alive
from reward_fns.clinical_rules import MODEL
from reward_fns.scorers.rule_judge import RuleJudgeModel


class RuleJudgeApp:
    """The web application. `latency_s` delays every reply, to stand for a slower judge."""

    def __init__(self, synonyms: Iterable[Sequence[str]] = (), latency_s: float = 0.0) -> None:
        self.model, self.latency_s = RuleJudgeModel(synonyms), latency_s
        self.app = web.Application(client_max_size=1_048_576)
        self.app.add_routes([
            web.get("/health", self.health),
            web.get("/v1/models", self.models),
            web.post("/v1/chat/completions", self.complete),
        ])  # fmt: skip

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "medix"}]})

    async def complete(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            body = None
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        status, answer = self.model.complete(body if isinstance(body, dict) else {})
        return web.json_response(answer, status=status)


async def serve(app: RuleJudgeApp, host: str, port: int, parent_pid: int | None, ready: Any) -> None:
    """Serve until cancelled, or until the process `parent_pid` is gone. `ready(url)` is called once it listens.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(app.app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0][1]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{bound}")
        if parent_pid is None:
            await asyncio.Event().wait()
        else:
            await _wait_for_end_of(parent_pid)
    finally:
        await runner.cleanup()


async def _wait_for_end_of(pid: int) -> None:
    while is_alive(pid):  # noqa: ASYNC110 - another process sets no event of ours
        await asyncio.sleep(0.5)


@contextmanager
def start_rule_judge(
    host: str = "127.0.0.1", port: int = 0, synonyms: Iterable[Sequence[str]] = (), latency_s: float = 0.0
) -> Iterator[str]:
    """Serve from a thread of this process; gives the base URL, and stops at the end of the block."""
    started = threading.Event()
    state: dict[str, Any] = {}

    def ready(url: str) -> None:
        state["url"] = url
        started.set()

    def run() -> None:
        loop = state["loop"] = asyncio.new_event_loop()
        state["task"] = loop.create_task(serve(RuleJudgeApp(synonyms, latency_s), host, port, None, ready))
        try:
            loop.run_until_complete(state["task"])
        except (OSError, asyncio.CancelledError) as error:
            state["error"] = error
        finally:
            loop.close()
            started.set()

    thread = threading.Thread(target=run, daemon=True, name="rule-judge")
    thread.start()
    started.wait(10)
    if "url" not in state:
        raise ScorerError("the rule-judge to start", str(state.get("error", "no reply")), "choose another port")
    try:
        yield state["url"]
    finally:
        state["loop"].call_soon_threadsafe(state["task"].cancel)
        thread.join(10)
