"""Verdicts that are kept: what their address holds, what survives the process, and what a failing file costs."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from medix.errors import ConfigError, ScorerError
from medix_verl.plugins.colocated_judge import ask_fixed_verdicts
from medix_verl.preflight.scorers import FIXED_VERDICTS
from reward_fns.scorers.cache import CacheOptions, VerdictCache
from reward_fns.scorers.judge_prompt import JUDGE_PROMPT, read_fields
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import Verdict
from tests.reward_fns.scorers.conftest import ask, completion


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({}, True), ({"timeout_s": 2.0, "max_in_flight": 3}, True),  # how it is reached is no part of the question
        ({"model": "other"}, False), ({"temperature": 0.5}, False), ({"max_tokens": 9}, False),
        ({"extra": {"top_k": 1}}, False), ({"max_field_chars": 1999}, False), ({"prompt": "other.txt"}, False),
        ({"reference": "other"}, False), ({"question": "other?"}, False), ({"question": None}, False),
        ({"aliases": ("x",)}, False), ({"parse": "substring"}, False), ({"seed": 1}, False),
    ],
)  # fmt: skip
async def test_whatever_decides_a_verdict_is_in_its_address_across_runs(
    change: dict[str, Any], shares: bool, fake_judge: Any, fast: Any, tmp_path: Path
) -> None:
    (tmp_path / "other.txt").write_text(f"Another wording.\n{JUDGE_PROMPT.read_text()}")
    asked = {name: value for name, value in change.items() if hasattr(ask(0), name)}
    settings = {name: value for name, value in change.items() if name not in asked}
    if "prompt" in change:
        settings["prompt"] = str(tmp_path / "other.txt")
    found = []
    for options, request in (({}, ask(0)), (settings, ask(0, **asked))):
        service = ScorerService(fast(fake_judge.url, cache=str(tmp_path / "c.sqlite"), **options))
        found.append(await service.judge(request))
        await service.aclose()
    assert [verdict.cached for verdict in found] == [False, shares]


SCORE_FORTY = """
import asyncio, sys
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest

async def one(service, n):
    await service.judge(JudgeRequest("reference", f"good {n}", "q?"))
    print(n, flush=True)

async def main():
    service = ScorerService({"judge": {"urls": [sys.argv[1]]}, "cache": {"path": sys.argv[2]}})
    await asyncio.gather(*(one(service, n) for n in range(40)))

asyncio.run(main())
"""


async def test_a_killed_process_leaves_its_verdicts_and_the_next_repeats_none(
    fake_judge: Any, fast: Any, tmp_path: Path
) -> None:
    async def half(judge: Any, request: web.Request) -> None:
        if sum(judge.answered.values()) >= 20:
            await asyncio.Event().wait()

    fake_judge.behaviour = half
    path = str(tmp_path / "verdicts.sqlite")
    arguments = (sys.executable, "-c", SCORE_FORTY, fake_judge.url, path)
    child = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(20):
        await asyncio.wait_for(child.stdout.readline(), 30)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    fake_judge.behaviour = None
    service = ScorerService(fast(fake_judge.url, cache=path, max_tokens=8))
    await asyncio.gather(*(service.judge(ask(n)) for n in range(40)))
    stats = service.stats()
    await service.aclose()
    assert (stats["judge_cache_hits"], stats["judge_calls"]) == (20, 20)
    assert fake_judge.answered == {f"good {n}": 1 for n in range(40)}


async def test_a_colocated_judge_is_asked_anew_although_the_cache_knows_its_path(
    fake_judge: Any, fast: Any, tmp_path: Path
) -> None:
    """Bad weights get 3 of 6 wrong (they say NO to all but "good ..."), better ones at the same path none."""

    async def know(judge: Any, request: web.Request) -> web.Response:
        candidate = (read_fields(judge.bodies[-1]["messages"][0]["content"]) or {})["CANDIDATE"]
        return completion("YES" if (candidate, True) in [fixed[2:] for fixed in FIXED_VERDICTS] else "NO")

    outcomes: list[Any] = []
    for behaviour in (None, know, None):
        fake_judge.behaviour = behaviour
        service = ScorerService(fast(fake_judge.url, cache=str(tmp_path / "c.sqlite")))
        outcomes += await asyncio.gather(ask_fixed_verdicts(service, "stop", ["strict"]), return_exceptions=True)
        await service.aclose()
    assert [type(outcome) for outcome in outcomes] == [ScorerError, type(None), ScorerError]
    assert len(fake_judge.bodies) == 18


@pytest.mark.parametrize("name", ["", "c.sqlite"])
def test_the_cache_is_bounded(name: str, tmp_path: Path) -> None:
    cache = VerdictCache(CacheOptions(path=str(tmp_path / name) if name else "", max_entries=50))
    for n in range(100):
        cache.put(n.to_bytes(32, "big"), Verdict(n % 2 == 0, "YES"))
    assert len(cache) == 50
    assert cache.get((49).to_bytes(32, "big")) is not None
    assert cache.get((60).to_bytes(32, "big")) is None
    cache.close()


def locked(path: Path) -> sqlite3.Connection:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_file_that_is_locked_costs_no_verdict_and_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.sqlite"
    cache = VerdictCache(CacheOptions(path=str(path)))
    holder = locked(path)
    start = time.monotonic()
    for n in range(5):
        cache.put(bytes([n]), Verdict(True, "YES"))
    assert time.monotonic() - start < 3  # the first waits a second for the lock, the others do not
    assert all(cache.get(bytes([n])) is not None for n in range(5))
    (said,) = caplog.messages
    assert "medix.scorer.cache.path" in said
    assert "locked" in said
    holder.execute("COMMIT")
    cache.close()
    reopened = VerdictCache(CacheOptions(path=str(path)))
    assert all(reopened.get(bytes([n])) is not None for n in range(5))
    reopened.close()


def test_a_new_file_that_another_process_has_locked_is_not_to_be_deleted(tmp_path: Path) -> None:
    holder = locked(tmp_path / "c.sqlite")
    with pytest.raises(ConfigError, match="locked") as refused:
        VerdictCache(CacheOptions(path=str(tmp_path / "c.sqlite")))
    holder.close()
    assert "Another process is using it" in refused.value.fix
    assert "Delete" not in refused.value.fix


def test_a_full_disk_costs_no_verdict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = VerdictCache(CacheOptions(path=str(tmp_path / "c.sqlite")))
    assert cache._file is not None
    cache._file.execute("PRAGMA max_page_count=3")
    for n in range(50):
        cache.put(bytes([n]), Verdict(True, "Y" * 3000))
    assert all(cache.get(bytes([n])) is not None for n in range(50))
    assert len(caplog.messages) == 1
    cache.close()


def test_a_reply_that_is_no_unicode_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        cache = VerdictCache(CacheOptions(path=str(tmp_path / "c.sqlite")))
        cache.put(b"key", Verdict(True, "YES \ud83d"))
        found = cache.get(b"key")
        assert found is not None
        assert found.correct
        cache.close()


def test_what_can_not_be_a_cache_file_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x" * 4096)
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE verdict (key TEXT, value INTEGER)")
    other.commit()
    other.close()
    for path in ("file", "file/c.sqlite", "other.sqlite", "."):
        with pytest.raises(ConfigError, match="verdict cache"):
            VerdictCache(CacheOptions(path=str(tmp_path / path)))
