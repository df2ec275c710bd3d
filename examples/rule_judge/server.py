"""The rule-based judge as an OpenAI-compatible server, so that a demo or a test runs the real client against it.

It reads the delimited fields of our own judge prompt (`recipes/medix/prompts/judge.txt`) and replies YES or NO. It is
not a language model, and says so: a prompt without those fields is HTTP 400.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web

from medix.errors import ScorerError
from medix.processes import is_alive
from reward_fns.clinical_rules import MODEL
from reward_fns.clinical_rules.verdict import RuleJudge

_FIELD = re.compile(r"\[\[([A-Z ]+)\]\]\n(.*?)\n\[\[/\1\]\]", re.DOTALL)
_ABSENT: Final = "(nothing else)"


def read_fields(prompt: str) -> dict[str, str] | None:
    """Field name -> text, from a filled judge prompt; None where one of the fields needed is not there once."""
    found = _FIELD.findall(prompt)
    names = [name for name, _ in found]
    if any(names.count(name) != 1 for name in ("REFERENCE", "CANDIDATE", "ALSO ACCEPTED")):
        return None
    return dict(found)


class RuleJudgeApp:
    """The web application. `latency_s` delays every reply, to stand for a slower judge."""

    def __init__(self, synonyms: Iterable[Sequence[str]] = (), latency_s: float = 0.0) -> None:
        self.judge, self.latency_s = RuleJudge(synonyms), latency_s
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
            prompt = body["messages"][-1]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            return _error(400, "a JSON body with messages is expected")
        if body.get("model") != MODEL:
            return _error(404, f"the model {body.get('model')!r} does not exist, only {MODEL!r}")
        fields = read_fields(prompt) if isinstance(prompt, str) else None
        if fields is None:
            return _error(400, "the delimited fields of medix's judge prompt are expected")
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        accepted = fields["ALSO ACCEPTED"]
        aliases = [] if accepted == _ABSENT else accepted.split("\n")
        verdict = "YES" if self.judge.same(fields["REFERENCE"], fields["CANDIDATE"], aliases) else "NO"
        text = json.dumps({"verdict": verdict}) if "response_format" in body else verdict
        return web.json_response(_completion(text, len(prompt)))


def _completion(text: str, prompt_chars: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    tokens = {"prompt_tokens": prompt_chars // 4, "completion_tokens": 1, "total_tokens": prompt_chars // 4 + 1}
    created = int(time.time())
    return {"id": "rule", "object": "chat.completion", "created": created, "model": MODEL, "choices": [choice], "usage": tokens}  # fmt: skip # noqa: E501


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


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
