"""A fake model and judge on a real socket, and the wiring of a small run."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evaluation.backends.endpoint import EndpointBackend
from evaluation.generate import GenerateCounts, generate
from evaluation.judging.judge import JudgeOptions
from evaluation.judging.stage import JudgeCounts, judge
from evaluation.options import Asking
from evaluation.run_folder import RunFolder
from reward_fns.scorers.endpoints import EndpointOptions
from tests.evaluation.layouts import write

Reply = Callable[[str, int], "str | int | None"]
"""(prompt, how often it was asked) -> text, an HTTP status, or None to hang."""


class FakeServer(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint in threads. `reply` may be exchanged while it runs."""

    request_queue_size = 128

    block_on_close = False

    def __init__(self, answer: str = "yes") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Reply = lambda prompt, asked: answer
        self.asked, self.lock = Counter[str](), threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""


class Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else json.dumps(content)
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.asked[prompt] += 1
            reply = self.server.reply(prompt, self.server.asked[prompt])
        if reply is None:
            time.sleep(30)
        status = reply if isinstance(reply, int) else 200
        choice = {"message": {"content": reply}, "finish_reason": "stop"}
        answer: Any = {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
        if status != 200:
            answer = {"error": {"message": "over the context length" if status == 400 else "no"}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None: ...


def serving(answer: str) -> Iterator[FakeServer]:
    server = FakeServer(answer)
    yield server
    server.stop()


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    yield from serving("yes")


@pytest.fixture
def fake_judge() -> Iterator[FakeServer]:
    yield from serving("YES")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A PubMedQA folder of twelve rows in the real schema, two to an abstract; the right answer is always yes."""
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
    return write(tmp_path / "pubmedqa", {"pqa_labeled/train-00000-of-00001.parquet": rows})


def row(**changes: Any) -> dict[str, Any]:
    """Return a line of `generations.jsonl`: an open question, answered rightly."""
    base = {
        "key": "k", "run": "r", "task": "sample", "id": "1", "place": 0, "kind": "open", "question": "What is seen?",
        "reference": "lung", "aliases": [], "choices": [], "letter": "", "passage": "", "modality": "X_RAY",
        "cluster": "c", "images": [], "points": [], "asked": "", "prompt": "bare", "response": "lung",
        "finish": "stop", "usage": {}, "latency_s": 0.1, "error": None,
    }  # fmt: skip
    return base | changes


def endpoint(url: str, **changes: Any) -> EndpointOptions:
    settings: dict[str, Any] = {"timeout_s": 0.8, "retries": 1, "backoff_s": 0.01, "max_in_flight": 4} | changes
    return EndpointOptions(urls=(url,), **settings)


def ask(out: Path, questions: Path, url: str, model: str = "fake", **changes: Any) -> GenerateCounts:
    """Run the generate stage on the twelve questions."""
    asking = Asking(model, ["pubmedqa"], data=[f"pubmedqa={questions}"], max_tokens=32, **changes)
    backend = EndpointBackend(endpoint(url), model, asking.decoding, deadline_s=2)
    return asyncio.run(generate(RunFolder(out), backend, asking, 4))


def answered(
    out: Path, questions: Path, server: FakeServer, reply: str | Reply, model: str = "fake", **changes: Any
) -> RunFolder:
    """Return the folder of a run in which the model answered so."""
    server.reply = reply if callable(reply) else lambda prompt, asked: reply
    ask(out, questions, server.url, model, **changes)
    return RunFolder(out)


def have_judged(
    out: Path, url: str, *models: str, failed_only: bool = False, rubric: Any = "verdict", **changes: Any
) -> JudgeCounts:
    """Run the judge stage with one judge a model."""
    judges = [JudgeOptions(m, endpoint(url), **({"deadline_s": 2} | changes)) for m in models or ("fake-judge",)]
    return asyncio.run(judge(RunFolder(out), judges, rubric, failed_only))
