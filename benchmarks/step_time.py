"""Print where a step of the CPU recipe goes: the run's own stages, and its generation and update by themselves.

    python benchmarks/step_time.py outputs/demo

By themselves means the same model, prompts, group size and response length as in the run: vLLM in one process without
Ray, agent loop or reward, and a plain torch step without FSDP, TransferQueue or log-probabilities. Run it on an idle
machine right after the run; only the ratio within one machine says anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import typer

from medix.processes import vllm_environment

STAGES = ("gen", "old_log_prob", "adv", "update_actor", "update_weights", "step")
PROMPTS, GROUP, RESPONSE_TOKENS, MICRO_BATCH = 16, 8, 15, 64


def batch_of(run: Path, processor: Any) -> list[tuple[str, list[Any]]]:
    """Return (prompt text, images) of the first rows of the training file, through the model's own chat template."""
    import pyarrow.parquet as parquet
    from PIL import Image

    from examples.tiny_vlm.warm_start import chat_prompt
    from medix.prompts import load_prompt
    from medix.sample import Sample

    batch = []
    for row in parquet.read_table(run / "data" / "train.parquet").slice(0, PROMPTS).to_pylist():
        info, images = row["extra_info"], tuple(image["bytes"] for image in row["images"])
        sample = Sample(info["sample_id"], "bench", "train", info["question"], "x", images)
        pictures = [Image.open(BytesIO(image)).convert("RGB") for image in images]
        batch.append((chat_prompt(processor, load_prompt(), sample), pictures))
    return batch


def timed(action: Callable[[], object]) -> float:
    """Return the median seconds of five calls after a first one that warms caches."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def main(run: Path) -> None:
    """Time both and print the ratio of the run's step to their sum."""
    os.environ.update({**vllm_environment(), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from vllm import LLM, SamplingParams

    from medix_verl.training.metrics_file import read_metrics

    rows = [row["data"] for row in read_metrics(run / "metrics.jsonl") if "timing_s/step" in row["data"]]
    stages = {stage: median(row.get(f"timing_s/{stage}", 0.0) for row in rows) for stage in STAGES}
    processor = AutoProcessor.from_pretrained(run / "tiny-vlm")
    batch = batch_of(run, processor)
    model = AutoModelForImageTextToText.from_pretrained(run / "tiny-vlm", attn_implementation="sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    responses = [(text + " a" * RESPONSE_TOKENS, pictures) for text, pictures in batch for _ in range(GROUP)]
    inputs = []
    for start in range(0, len(responses), MICRO_BATCH):
        texts, pictures = zip(*responses[start : start + MICRO_BATCH], strict=True)
        images = [image for found in pictures for image in found]
        inputs.append(processor(text=list(texts), images=images or None, return_tensors="pt", padding=True))

    def update() -> None:
        for part in inputs:
            logits = model(**part).logits[:, :-1]
            (-torch.log_softmax(logits, -1).gather(-1, part["input_ids"][:, 1:, None]).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    llm = LLM(str(run / "tiny-vlm"), dtype="float32", enforce_eager=True, max_model_len=192, max_num_seqs=128)
    sampling = SamplingParams(temperature=1.0, n=GROUP, max_tokens=40, logprobs=0)
    requests = [{"prompt": t, "multi_modal_data": {"image": i}} if i else {"prompt": t} for t, i in batch]
    alone = timed(update), timed(lambda: llm.generate(requests, sampling, use_tqdm=False))
    print("stages of the run, s:", {name: round(value, 2) for name, value in stages.items()})
    print(f"update {alone[0]:.2f} s, generation {alone[1]:.2f} s, step / both {stages['step'] / sum(alone):.2f}")


if __name__ == "__main__":
    typer.run(main)
