"""Build the tiny model: tokenizer, weights, warm start, saved as an ordinary Hugging Face folder."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from examples.tiny_vlm.warm_start import WarmStart, careful_target, careless_target
from medix.prompts import load_prompt
from medix.sample import Sample

BATCH = 24


def build_tiny_vlm(
    samples: Sequence[Sample], out: Path, *, steps: int = 720, careless_share: float = 0.75, seed: int = 0
) -> dict[str, Any]:
    """Train and save the model; return what was built (`parameters`, `vocabulary`, `steps`, `final_loss`).

    Args:
        samples: the training split, with images.
        out: folder to write; an existing model in it is replaced.
        steps: warm-start steps.
        careless_share: share of the targets made careless on purpose, in [0, 1].
    """
    from transformers import AutoProcessor

    from examples.tiny_vlm.model import build_model, save
    from examples.tiny_vlm.tokenizer import train_tokenizer

    rng = random.Random(seed)
    prompt = load_prompt()
    corpus = (
        text for s in samples for text in (s.question, careful_target(s, rng), careless_target(s, rng), *s.aliases)
    )
    tokenizer = train_tokenizer(corpus, prompt)
    model = build_model(tokenizer, seed)
    # Renamed when it is whole: a recipe that finds the folder takes the model in it for finished.
    part = out.with_name(out.name + ".part")
    save(part, model, tokenizer)
    warm_start = WarmStart(model, AutoProcessor.from_pretrained(part), prompt, careless_share, steps)
    loss, order = float("nan"), list(samples)
    for step in track(range(steps), "warm start", transient=True):
        start = step * BATCH % max(1, len(order) - BATCH + 1)
        if start < BATCH:
            rng.shuffle(order)
        loss = warm_start.step(order[start : start + BATCH], rng)
    save(part, model, tokenizer)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "vocabulary": len(tokenizer), "steps": steps, "final_loss": loss}
