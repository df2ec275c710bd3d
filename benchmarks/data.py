"""Data preparation, measured: token counting beside veRL's own filter, and a large set killed at half.

    python benchmarks/data.py count --rows 200          # both on the same rows, in one run
    python benchmarks/data.py prepare --rows 20000      # memory, rows/s, SIGKILL at half, same bytes

Prints one JSON object. Figures of one run may be compared with each other, not with those of another machine or day.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

QUESTIONS = (
    "Which organ is shown?",
    "Is there an effusion on the left side?",
    "Describe the main finding in one sentence.",
)


def write_rows(folder: Path, rows: int, side: int) -> Path:
    """A JSONL set of `rows` distinct PNG images of `side` x `side` pixels: blobs with a little noise, like scans."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (2 * side, 2 * side, 1))
    with (folder / "train.jsonl").open("w") as table:
        for row in range(rows):
            blobs = Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).resize(
                (side, side), Image.Resampling.BICUBIC
            )
            x, y = rng.integers(0, side, 2)
            pixels = np.asarray(blobs, dtype=np.float32)[..., None] + noise[y : y + side, x : x + side]
            grey = np.repeat(np.clip(pixels, 0, 255).astype(np.uint8), 3, axis=2)
            buffer = io.BytesIO()
            Image.fromarray(grey).save(buffer, "PNG", compress_level=1)
            (folder / f"images/{row}.png").write_bytes(buffer.getvalue())
            question = f"{QUESTIONS[row % len(QUESTIONS)]} Case {row}."
            line = {"id": str(row), "question": question, "answer": f"finding {row}", "images": [f"images/{row}.png"]}
            table.write(json.dumps(line) + "\n")
    return folder


def write_model(folder: Path) -> Path:
    """A model folder without weights that has Qwen2.5-VL's image processor settings and a small tokenizer."""
    from examples.tiny_vlm.tokenizer import CHAT_TEMPLATE, train_tokenizer
    from medix.prompts import load_prompt

    train_tokenizer(QUESTIONS, load_prompt()).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "patch_size": 14,
        "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "size": {"shortest_edge": 3136, "longest_edge": 12845056},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    return folder


def measure_count(rows: int, workers: int) -> dict[str, Any]:
    """Seconds of both ways over the same file, and whether each row's count is the same."""
    from omegaconf import OmegaConf
    from transformers import AutoProcessor, AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.tokenizer import build_multimodal_processor_inputs

    from data_prep.prepare import prepare
    from data_prep.recount import count_prepared
    from data_prep.tokens import TokenCounter

    work = Path(tempfile.mkdtemp())
    model = write_model(work / "model")
    prepare([f"jsonl:{write_rows(work / 'set', rows, 512)}"], work / "out", workers=1)
    path = work / "out" / "train.parquet"
    counter = TokenCounter(model)
    ours, seconds = [], float("inf")
    for _ in range(3):
        start = time.perf_counter()
        ours = list(count_prepared(path, counter))
        seconds = min(seconds, time.perf_counter() - start)

    processor, tokenizer = AutoProcessor.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    limit = sorted(ours)[rows // 2]
    config = {"max_prompt_length": limit, "filter_overlong_prompts": False, "cache_dir": str(work / "cache")}
    dataset = RLHFDataset([str(path)], tokenizer, OmegaConf.create(config), processor)
    dataset.filter_overlong_prompts = True
    theirs: dict[int, float] = {}
    for processes in (1, workers):  # one runs in this process, without the start of another
        dataset.num_workers = processes if processes > 1 else None
        start = time.perf_counter()
        kept = len(dataset.maybe_filter_out_long_prompts(dataset.dataframe))
        theirs[processes] = rows / (time.perf_counter() - start)

    def real(index: int) -> int:
        messages = dataset[index]["raw_prompt"]
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        images, videos, audios = dataset._process_multi_modal_info(messages, dataset.image_patch_size, config)
        inputs = build_multimodal_processor_inputs(
            processor, text=[text], images=images, videos=videos, audio=audios, mm_processor_kwargs={}
        )
        return len(inputs["input_ids"][0])

    return {
        "rows": rows,
        "image_bytes_mean": round(sum(p.stat().st_size for p in (work / "set/images").iterdir()) / rows),
        "ours_rows_per_s": round(rows / seconds, 1),
        "verl_filter_rows_per_s_by_processes": {str(n): round(rate, 2) for n, rate in theirs.items()},
        "times_faster_than_its_best": round(rows / seconds / max(theirs.values()), 1),
        "same_rows_kept_by_filter": kept == sum(n <= limit for n in ours),
        "rows_with_equal_count": sum(real(i) == ours[i] for i in range(rows)),
    }


class MemoryWatch:
    """Resident memory of a process and its children, in MiB, twice a second."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._process, self.seen = psutil.Process(pid), list[float]()
        self._thread = threading.Thread(target=self._run, args=(psutil.Error,), daemon=True)
        self._thread.start()

    def _run(self, gone: type[Exception]) -> None:
        while True:
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.seen.append(sum(process.memory_info().rss for process in family) / 2**20)
            except gone:
                return
            time.sleep(0.5)


def start_prepare(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = ["prepare", f"jsonl:{source}", "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-c", "from medix_verl.cli import main; main()", *command], stdout=subprocess.DEVNULL
    )


def measure_prepare(rows: int, side: int, workers: int) -> dict[str, Any]:
    """One uninterrupted preparation watched for memory, then one killed at half and run again."""
    work = Path(tempfile.mkdtemp())
    source = write_rows(work / "set", rows, side)
    start = time.perf_counter()
    process = start_prepare(source, work / "whole", workers)
    watch = MemoryWatch(process.pid)
    process.wait()
    seconds, memory = time.perf_counter() - start, watch.seen
    shards = -(-rows // 256)
    killed = start_prepare(source, work / "killed", workers)
    while len(list((work / "killed" / ".work").glob("*.json"))) < shards // 2 and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(2)  # workers see that their parent is gone and leave
    before = {p.name: p.stat().st_mtime_ns for p in (work / "killed" / ".work").glob("*.json")}
    again = start_prepare(source, work / "killed", workers)
    redone: set[str] = set()
    while again.poll() is None:
        for name, stamp in before.items():
            path = work / "killed" / ".work" / name
            if path.exists() and path.stat().st_mtime_ns != stamp:
                redone.add(name)
        time.sleep(0.2)
    quarter = len(memory) // 4
    return {
        "rows": rows,
        "image_side_px": side,
        "workers": workers,
        "rows_per_s": round(rows / seconds, 1),
        "memory_mib_max": round(max(memory)),
        "memory_mib_second_quarter": round(max(memory[quarter : 2 * quarter] or [0])),
        "memory_mib_third_quarter": round(max(memory[2 * quarter : 3 * quarter] or [0])),
        "shards": shards,
        "shards_finished_when_killed": len(before),
        "finished_shards_made_again": len(redone),
        "same_bytes": digests(work / "whole") == digests(work / "killed"),
    }


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("count", "prepare"))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--side", type=int, default=256, help="of the images of `prepare`, in pixels")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.what == "count":
        result = measure_count(arguments.rows, arguments.workers)
    else:
        result = measure_prepare(arguments.rows, arguments.side, arguments.workers)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
