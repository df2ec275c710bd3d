"""kill -9 of prepare, score, eval and export, five times each at random moments, and the same command again each time.

Nothing is lost: the result is that of a command that was left in peace. What was paid for is not asked again: only
calls that were in flight at a kill are repeated. Nothing of a killed command goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from medix.jsonl import JsonLines
from tests.evaluation.conftest import FakeServer
from tests.fuzzed import build_checkpoint, picture

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

KILLS = 5
IN_FLIGHT = 2
MEDIX = [sys.executable, "-c", "from medix_verl.cli import main; main()"]


def killed_and_ended(words: list[object], moments: list[Callable[[], bool]]) -> str:
    """Kill the command once at each moment, then let it come to its end; return its output."""
    command = [*MEDIX, *map(str, words)]
    for moment in moments:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not moment():
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it was killed"
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(children, timeout=20)
        assert left == []
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def contents(folder: Path) -> dict[str, str]:
    """Return the digest of every result; locks and ledgers of time are none."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", "")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += path.stat().st_size
    return total


def in_peace_then_killed(command: Callable[[Path], list[object]], growing: str, folder: Path) -> tuple[Path, Path]:
    """Run a command once in peace, then kill it when a random share of its result is written; return both results.

    Args:
        growing: the folder in which `killed` grows, below `folder`.
    """
    killed_and_ended(command(folder / "peace"), [])
    whole, rng = size(folder / "peace"), random.Random(18)
    shares = [rng.uniform(0.0, 0.8) for _ in range(KILLS)]
    moments = [lambda s=share: size(folder / growing) > s * whole for share in shares]
    killed_and_ended(command(folder / "killed"), moments)
    return folder / "peace", folder / "killed"


def test_prepare(tmp_path: Path) -> None:
    rows = [{"question": f"What is in {n}?", "answer": f"organ {n}", "image": f"{n}.bmp"} for n in range(600)]
    (tmp_path / "rows").mkdir()
    for n in range(len(rows)):
        picture(n).resize((300, 300)).save(tmp_path / "rows" / f"{n}.bmp")
    (tmp_path / "rows/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    peace, killed = in_peace_then_killed(
        lambda out: ["prepare", f"table:{tmp_path / 'rows'}", "--out", out, "--workers", 2], "killed/.work", tmp_path
    )
    assert contents(peace) == contents(killed)
    assert len(contents(peace)) >= 3


def test_export(tmp_path: Path) -> None:
    build_checkpoint(tmp_path)
    peace, killed = in_peace_then_killed(
        lambda out: ["export", tmp_path / "run", "--out", out, "--base", tmp_path / "base"], "killed.part", tmp_path
    )
    record = "export.json"  # has the seconds that it took
    ours, theirs = contents(peace), contents(killed)
    assert ours.pop(record) != theirs.pop(record)
    assert ours == theirs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "killed", "peace", "run"]


def calls(server: FakeServer) -> int:
    """Return how many calls were about a row: each start also tries once whether the server answers at all."""
    return sum(count for prompt, count in server.asked.items() if "organ" in prompt)


def test_score(tmp_path: Path) -> None:
    """A slow judge answers 60 rows. Each kill comes at a random number of answers."""
    rows = [
        {
            "id": f"r{n}",
            "response": f"<X_RAY><thinking>t</thinking><answer>finding {n}</answer>",
            "reference": f"organ {n}",
        }
        for n in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = FakeServer()
    server.reply = lambda prompt, asked: (time.sleep(0.02), "YES")[1]
    words: list[object] = ["score", "--jsonl", path, "--json", "--judge-url", server.url, "--judge-model", "fake"]
    words += [f"medix.scorer.judge.max_in_flight={IN_FLIGHT}", "medix.reward.components.embed_accuracy.weight=0"]
    counts = sorted(random.Random(18).sample(range(3, 55), KILLS))
    said = killed_and_ended(words, [lambda n=count: len(server.asked) >= n for count in counts])
    server.stop()
    scored = [json.loads(line) for line in said.splitlines()]
    assert [row["sample_id"] for row in scored] == [f"r{n}" for n in range(60)]
    assert {row["llm_accuracy"] for row in scored} == {1.0}
    repeated = calls(server) - 60
    print(f"score: {KILLS} kills, {repeated} calls repeated")
    assert 0 <= repeated <= KILLS * IN_FLIGHT


def test_eval(tmp_path: Path) -> None:
    """A slow model answers 40 questions and a slow judge reads the answers; kills fall into both stages."""
    (tmp_path / "own.yaml").write_text(
        json.dumps({"name": "own", "source": "jsonl:rows.jsonl", "summary": "x", "judging": "verdict"})
    )
    rows = [{"id": f"r{n}", "question": f"Which organ is {n}?", "answer": f"organ {n}"} for n in range(40)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, judge, out = FakeServer(), FakeServer(), tmp_path / "run"
    model.reply = lambda prompt, asked: (time.sleep(0.02), "It looks like an organ.")[1]
    judge.reply = lambda prompt, asked: (time.sleep(0.02), "YES")[1]
    words: list[object] = ["eval", "run", "--model", "fake", "--model-url", model.url, "--tasks", tmp_path / "own.yaml"]
    words += ["--data", f"own={tmp_path / 'data'}", "--judge-url", judge.url, "--judge-model", "fake", "--out", out]
    words += ["--in-flight", IN_FLIGHT]

    def asked() -> int:
        return len(model.asked) + len(judge.asked)

    counts = sorted(random.Random(18).sample(range(3, 75), KILLS))
    said = killed_and_ended(words, [lambda n=count: asked() >= n for count in counts])
    model.stop()
    judge.stop()
    assert "100.0 %" in said
    for name in ("generations.jsonl", "judgements.jsonl"):
        keys = [row["key"] for _, row in JsonLines(out / name)]
        assert len(keys) == len(set(keys)) == 40
    repeated = calls(model) + calls(judge) - 80
    print(f"eval: {KILLS} kills, {repeated} calls repeated")
    assert 0 <= repeated <= KILLS * IN_FLIGHT
