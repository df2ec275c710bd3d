"""What a judge of 50 ms adds to a step of the CPU recipe: scoring overlaps the rollout.

    python -m benchmarks.judge_overhead outputs/demo --steps 24

One run, on the model and data of an earlier one. Its judge is a mock that changes between no latency and 50 ms whenever
a second has passed without a call, which is once a step; so machine and model are the same on both sides. Verdicts are
not cached, so that every response that needs a judge asks it. Which steps were slow is read from the latencies logged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.mock_judge import Protocol

ROOT = Path(__file__).resolve().parents[1]
LATENCY_S, QUIET_S = 0.05, 1.0


class Alternating(Protocol):
    """Answers at once or after LATENCY_S, by turns of bursts."""

    slow, last = False, 0.0

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if now - Alternating.last > QUIET_S:
            Alternating.slow = not Alternating.slow
        Alternating.last = now
        self.latency_s = LATENCY_S if Alternating.slow else 0.0
        super().data_received(data)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Alternating(0.0), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def run(earlier: Path, out: Path, url: str, steps: int) -> None:
    overrides = {
        "medix.run_dir": out,
        "actor_rollout_ref.model.path": earlier / "tiny-vlm",
        "data.train_files": earlier / "data" / "train.parquet",
        "data.val_files": earlier / "data" / "val.parquet",
        "trainer.total_training_steps": steps,
        "trainer.val_before_train": "false",
        "trainer.test_freq": 1000,
        "trainer.save_freq": 1000,
        "medix.scorer.judge.urls": f"[{url}]",
        "medix.scorer.cache.path": "''",
        "+medix.scorer.cache.max_entries": 0,
    }
    train = 'source recipes/medix/lib/cpu_env.sh && exec medix train --config-name medix_cpu -- "$@"'
    command = ["bash", "-c", train, "train", *(f"{key}={value}" for key, value in overrides.items())]
    subprocess.run(command, cwd=ROOT, check=True)


def slow_steps(out: Path) -> dict[int, bool]:
    """Step -> whether its judge was the slow one: then no call of it was quicker than the latency."""
    quickest: dict[int, float] = {}
    for line in (out / "rollouts" / "scored.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["detail"]["judge"]:
            latency_s = row["detail"]["judge"]["latency_s"]
            quickest[row["step"]] = min(latency_s, quickest.get(row["step"], latency_s))
    return {step: latency_s >= LATENCY_S for step, latency_s in quickest.items()}


def compare(out: Path, warm_up: int) -> dict[str, Any]:
    """Medians of `timing_s/step` and `timing_s/gen` over slow and fast steps."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = {row["step"]: row["data"] for row in rows if "timing_s/step" in row["data"] and row["step"] > warm_up}
    kinds = slow_steps(out)
    slow = [data for step, data in steps.items() if kinds.get(step) is True]
    fast = [data for step, data in steps.items() if kinds.get(step) is False]
    found: dict[str, Any] = {"steps": [len(fast), len(slow)], "calls": [r["reward/judge_calls"] for r in slow]}
    for name in ("step", "gen"):
        without, with_judge = ([round(data[f"timing_s/{name}"], 2) for data in side] for side in (fast, slow))
        found[name] = {"without_s": without, "with_s": with_judge}
        if without and with_judge:
            found[name]["over"] = round(median(with_judge) / median(without), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", type=Path, nargs="?", default=Path("outputs/demo"))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())
        return
    command = [sys.executable, "-m", "benchmarks.judge_overhead", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as judge, tempfile.TemporaryDirectory() as folder:
        assert judge.stdout is not None
        url = f"http://127.0.0.1:{judge.stdout.readline().strip()}"
        try:
            run(arguments.earlier.resolve(), Path(folder) / "run", url, arguments.steps)
            print(json.dumps(compare(Path(folder) / "run", warm_up=2)))
        finally:
            judge.terminate()


if __name__ == "__main__":
    main()
