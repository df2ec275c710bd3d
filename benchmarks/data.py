"""Data preparation, measured: seconds and memory, of this checkout and of others in the same run.

    python benchmarks/data.py --rows 2000 --beside /old/checkout

Prints one JSON object. Figures of one run may be compared with each other, not with those of another machine or day.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import typer
from PIL import Image

QUESTIONS = ("Which organ is shown?", "Is there an effusion on the left side?", "Describe the main finding.")
HERE = Path(__file__).resolve().parents[1]


def write_rows(folder: Path, rows: int, side: int) -> Path:
    """Write a JSONL set of `rows` distinct PNG images of `side` x `side` pixels: blobs with some noise, like scans."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (2 * side, 2 * side))
    with (folder / "train.jsonl").open("w") as table:
        for row in range(rows):
            small = Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8))
            blobs = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
            x, y = rng.integers(0, side, 2)
            grey = Image.fromarray(np.clip(blobs + noise[y : y + side, x : x + side], 0, 255).astype(np.uint8))
            buffer = io.BytesIO()
            grey.convert("RGB").save(buffer, "PNG", compress_level=1)
            (folder / f"images/{row}.png").write_bytes(buffer.getvalue())
            question = f"{QUESTIONS[row % len(QUESTIONS)]} Case {row}."
            line = {"id": str(row), "question": question, "answer": f"finding {row}", "images": [f"images/{row}.png"]}
            table.write(json.dumps(line) + "\n")
    return folder


def measure(checkout: Path, source: Path, out: Path, workers: int) -> dict[str, Any]:
    """Return the seconds, CPU seconds and peak memory (MiB, with the workers) of one preparation."""
    command = ["prepare", f"jsonl:{source}", "--out", str(out), "--workers", str(workers)]
    program = f"from {'medix_verl' if (checkout / 'medix_verl').is_dir() else 'medix'}.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, *command], stdout=subprocess.DEVNULL, env=environment, cwd=checkout
    )
    watched, peak, cpu = psutil.Process(process.pid), 0.0, 0.0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family) / 2**20)
            cpu = max(cpu, sum(sum(one.cpu_times()[:2]) for one in family))
        except psutil.Error:
            continue
        time.sleep(0.2)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{checkout}: medix prepare failed")
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "memory_mib": round(peak)}


def main(rows: int = 2000, side: int = 256, workers: int = 2, beside: list[Path] | None = None) -> None:
    """Measure; images have `side` x `side` pixels, `beside` are other checkouts to measure in the same run."""
    work = Path(tempfile.mkdtemp())
    source = write_rows(work / "set", rows, side)
    found: dict[str, Any] = {"rows": rows, "side": side, "workers": workers}
    for checkout in (HERE, *(beside or ())):
        found[str(checkout)] = measure(checkout, source, work / f"out{len(found)}", workers)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
