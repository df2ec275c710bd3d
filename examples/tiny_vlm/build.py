"""Build the tiny model: tokenizer, weights, warm start, saved as an ordinary Hugging Face folder."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from examples.tiny_vlm.warm_start import WarmStart, careful_target, careless_target
from medix.prompts import load_prompt
from medix.sample import Sample


def build_tiny_vlm(
    samples: Sequence[Sample],
    out: Path,
    *,
    steps: int = 720,
    batch_size: int = 24,
    careless_share: float = 0.75,
    lr: float = 3e-3,
    seed: int = 0,
) -> dict[str, Any]:
    """Train and save the model; returns what was built (`parameters`, `vocabulary`, `steps`, `final_loss`).

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
    prompt_template = load_prompt()
    tokenizer = train_tokenizer(_corpus(samples, rng), prompt_template)
    model = build_model(tokenizer, seed)
    # Renamed when it is whole: a recipe that finds the folder takes the model in it for finished.
    part = out.with_name(out.name + ".part")
    save(part, model, tokenizer)
    processor = AutoProcessor.from_pretrained(part)
    warm_start = WarmStart(model, processor, prompt_template, careless_share=careless_share, lr=lr, steps=steps)
    loss = _train(warm_start, samples, rng, steps, batch_size)
    save(part, model, tokenizer)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "vocabulary": len(tokenizer), "steps": steps, "final_loss": loss}


def _corpus(samples: Sequence[Sample], rng: random.Random) -> list[str]:
    texts = []
    for sample in samples:
        texts += [sample.question, careful_target(sample, rng), careless_target(sample, rng), *sample.aliases]
    return texts


def _train(warm_start: WarmStart, samples: Sequence[Sample], rng: random.Random, steps: int, batch_size: int) -> float:
    loss, order = float("nan"), list(samples)
    with Progress(transient=True) as progress:
        task = progress.add_task("warm start", total=steps)
        for step in range(steps):
            start = step * batch_size % max(1, len(order) - batch_size + 1)
            if start < batch_size:
                rng.shuffle(order)
            loss = warm_start.step(order[start : start + batch_size], rng)
            progress.update(task, advance=1, description=f"warm start, loss {loss:.3f}")
    return loss
