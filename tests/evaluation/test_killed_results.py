"""kill -9 while figures or the report are written: what is there is whole, and the next run writes it anew."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.test_drills import MEDIX, ask, have_judged

DELAYS_S = (0.3, 0.6, 0.9, 1.2, 1.5)
"""From before the imports are done to about the end of the command."""


def is_whole(path: Path) -> bool:
    text = path.read_text()
    return text.rstrip().endswith("</html>") if path.suffix == ".html" else bool(json.loads(text)["tasks"]["pubmedqa"])


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "result"), [("score", "scores.json"), ("report", "evaluation.html")])
def test_a_killed_stage_leaves_whole_results(
    stage: str, result: str, tmp_path: Path, questions: Path, fake_server: Any, fake_judge: Any
) -> None:
    fake_server.reply = lambda prompt, asked: "It surely helps."
    fake_judge.reply = lambda prompt, asked: "NO"
    out = tmp_path / "run"
    ask(out, questions, fake_server.url)
    have_judged(out, fake_judge.url)
    kept = {name: (out / name).read_bytes() for name in ("generations.jsonl", "judgements.jsonl")}
    subprocess.run([*MEDIX, "eval", "score", "--out", str(out)], check=True, capture_output=True)
    command = [*MEDIX, "eval", stage, "--out", str(out)]
    for delay_s in DELAYS_S:
        (out / result).unlink(missing_ok=True)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (out / result).exists() or is_whole(out / result)
    subprocess.run(command, check=True, capture_output=True)
    assert is_whole(out / result)
    assert kept == {name: (out / name).read_bytes() for name in kept}
