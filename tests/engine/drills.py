"""Runs of the CPU profile for the drills: small, of one rank, with a judge slow enough to be caught in a step."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from medix.jsonl import JsonLines
from medix_verl.training.metrics_file import read_metrics

ROOT = Path(__file__).resolve().parents[2]
PROMPTS, RESPONSES, STEPS = 4, 4, 5
START_LIMIT_S, END_LIMIT_S = 400, 180
SMALL = [
    f"data.train_batch_size={PROMPTS}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
    f"actor_rollout_ref.rollout.n={RESPONSES}",
    f"trainer.total_training_steps={STEPS}",
    "trainer.val_before_train=false",
    "trainer.test_freq=100",
    "trainer.save_freq=1",
    "data.val_max_samples=4",
]


def shell(command: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A command in the CPU profile's environment."""
    script = f"source recipes/medix/lib/cpu_env.sh; exec {command}"
    with log.open("ab") as output:
        return subprocess.Popen(
            ["bash", "-c", script], cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output
        )


def model_and_data(folder: Path) -> Path:
    """The folder that holds `tiny-vlm` and `data`; an earlier drill's, named by MEDIX_DRILL_GROUND, saves minutes."""
    if ready := os.environ.get("MEDIX_DRILL_GROUND"):
        return Path(ready)
    for command in (
        f"python -m examples.tiny_vlm --out {folder}/tiny-vlm --steps 160",
        f"medix prepare sample --out {folder}/data --model {folder}/tiny-vlm",
    ):
        assert shell(command, folder / "build.log").wait(300) == 0, (folder / "build.log").read_text()
    return folder


@dataclass(frozen=True)
class Drill:
    """One run folder, and the one command that trains there. Attempts come and go."""

    run: Path
    model: Path
    data: Path
    judge_url: str
    extra: tuple[str, ...] = ()
    within: str = ""
    """What goes before the command, e.g. `ip netns exec NAME`."""

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        overrides = [
            f"medix.run_dir={self.run}",
            f"actor_rollout_ref.model.path={self.model}",
            f"data.train_files={self.data}/train.parquet",
            f"data.val_files={self.data}/val.parquet",
            f"medix.scorer.judge.urls=[{self.judge_url}]",
            *SMALL,
            *self.extra,
        ]
        self.run.mkdir(parents=True, exist_ok=True)
        return shell(
            f"{self.within} medix train --config-name medix_cpu -- {' '.join(overrides)}",
            self.run / "medix.out",
            **environment,
        )

    def processes(self) -> list[psutil.Process]:
        """Every live process of this run's attempts, found by what all of them inherit; the oldest first."""
        found = []
        for process in psutil.process_iter():
            try:
                inherited = process.environ().get("VERL_FILE_LOGGER_PATH", "")
            except (psutil.Error, OSError):
                continue
            if inherited.startswith(str(self.run)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def wait_for(self, condition: Callable[[], bool], process: subprocess.Popen[bytes], limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert process.poll() is None, f"the run ended before its time:\n{self.said()}"
            assert time.monotonic() < end, f"nothing for {limit_s} s:\n{self.said()}"
            time.sleep(0.02)

    def trained(self) -> list[dict[str, Any]]:
        path = self.run / "rollouts" / "scored.jsonl"
        return [row for _, row in JsonLines(path) if row["split"] == "train"] if path.exists() else []

    def samples_by_step(self) -> dict[int, set[str]]:
        """Step -> the prompts that were asked, by whichever attempt."""
        samples: dict[int, set[str]] = defaultdict(set)
        for row in self.trained():
            samples[row["step"]].add(row["sample_id"])
        return dict(samples)

    def metrics(self) -> dict[int, dict[str, Any]]:
        """Step -> its figures; of a step that was done again, the later ones."""
        rows = read_metrics(self.run / "metrics.jsonl")
        return {row["step"]: row["data"] for row in rows if "timing_s/step" in row["data"]}

    def logged_steps(self) -> list[int]:
        lines = (self.run / "metrics.jsonl").read_text().splitlines()
        return [row["step"] for row in map(json.loads, lines) if "timing_s/step" in row["data"]]

    def said(self) -> str:
        """The end of what `medix train` showed its user."""
        return (self.run / "medix.out").read_text(errors="replace")[-3000:]

    def saved_step(self) -> int:
        marker = self.run / "checkpoints" / "latest_checkpointed_iteration.txt"
        return int(marker.read_text()) if marker.exists() else 0
