"""The rule-based judge as an OpenAI-compatible server, so that a demo or a test runs the real client against it.

It reads the delimited fields of our own judge prompt (`recipes/medix/prompts/judge.txt`) and replies YES or NO. It is
not a language model, and says so: a prompt without those fields is HTTP 400.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from medix.errors import ScorerError
from medix.processes import is_alive
from reward_fns.clinical_rules.rule_judge import MODEL, RuleJudgeModel


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


async def serve(app: RuleJudgeApp, host: str, port: int, parent_pid: int | None, ready: Callable[[str], Any]) -> None:
    """Serve until cancelled, or until the process `parent_pid` is gone. `ready(url)` is called once it listens.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(app.app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        ready(f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}")
        while parent_pid is None or is_alive(parent_pid):  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.5)
    finally:
        await runner.cleanup()


@contextmanager
def start_rule_judge(
    host: str = "127.0.0.1", port: int = 0, synonyms: Iterable[Sequence[str]] = (), latency_s: float = 0.0
) -> Iterator[str]:
    """Serve from a thread of this process; give the base URL, and stop at the end of the block.

    Raises:
        ScorerError: the port is taken.
    """
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(RuleJudgeApp(synonyms, latency_s), host, port, None, started.set_result))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass  # the end of the block
        except OSError as error:
            started.set_exception(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, daemon=True, name="rule-judge")
    thread.start()
    try:
        url = started.result(10)
    except (OSError, TimeoutError) as error:
        raise ScorerError(f"The rule-judge does not start: {error}.", "Choose another port.") from error
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
