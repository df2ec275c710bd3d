"""`python -m examples.tiny_vlm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def tiny_vlm(
    out: Annotated[Path, typer.Option(help="folder to write the Hugging Face model to")],
    steps: Annotated[int, typer.Option(min=1, help="warm-start steps")] = 720,
    careless_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="careless targets, later steps")] = 0.75,
    seed: Annotated[int, typer.Option(help="of the weights and of the batches")] = 0,
    data: Annotated[Path | None, typer.Option(help="sample set folder; the demo's by default")] = None,
) -> None:
    """Build the tiny Qwen2.5-VL of the demo: real architecture, 2 million parameters, a mediocre policy."""
    import os

    # A tokenizer that forked workers share warns at every step otherwise.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from data_prep.sources.sample import SAMPLE_DATA, read_sample_set
    from examples.tiny_vlm.build import build_tiny_vlm

    samples = list(read_sample_set("train", data or SAMPLE_DATA))
    built = build_tiny_vlm(samples, out, steps=steps, careless_share=careless_share, seed=seed)
    print(
        f"tiny-vlm: {built['parameters']:,} parameters, vocabulary {built['vocabulary']}, "
        f"{built['steps']} warm-start steps to loss {built['final_loss']:.3f}, saved in {out}"
    )


typer.run(tiny_vlm)
