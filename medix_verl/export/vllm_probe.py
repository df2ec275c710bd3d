"""A child of `medix export --check-vllm`: the folder in vLLM, greedy, on the same prompts. Real weights, no dummy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from medix_verl.export.loading import load_processor, sees_images
from medix_verl.export.probes import Probe, model_inputs, probe_image, probes_for, prompt_text

ROOM: Final = 64
"""Tokens of the context beyond prompt and answer."""


def probe_vllm(request: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens of each probe."""
    import torch
    import vllm

    folder = Path(request["folder"])
    with_images = sees_images(folder)
    processor = load_processor(folder, with_images)
    probes = probes_for(with_images)
    longest = max(model_inputs(processor, probe, with_images)["input_ids"].shape[1] for probe in probes)
    length = longest + request["max_new_tokens"] + ROOM
    engine = vllm.LLM(
        model=str(folder),
        # Some processors advertise bfloat16 and then refuse the instruction.
        dtype="auto" if torch.cuda.is_available() else "float32",
        load_format="auto",
        enforce_eager=True,
        max_model_len=length,
        max_num_batched_tokens=max(length, 2048),
        max_num_seqs=2,
        limit_mm_per_prompt={"image": 1} if with_images else {},
    )
    sampling = vllm.SamplingParams(temperature=0.0, max_tokens=request["max_new_tokens"])
    outputs = engine.generate([_prompt(processor, probe, with_images) for probe in probes], sampling)
    return {
        "version": vllm.__version__,
        "dtype": str(engine.llm_engine.model_config.dtype).removeprefix("torch."),
        "tokens": {
            probe.name: list(output.outputs[0].token_ids) for probe, output in zip(probes, outputs, strict=True)
        },
    }


def _prompt(processor: Any, probe: Probe, with_images: bool) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt": prompt_text(processor, probe, with_images)}
    if probe.sees_image:
        prompt["multi_modal_data"] = {"image": probe_image()[0]}
    return prompt


if __name__ == "__main__":
    answer = probe_vllm(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps({"found": answer}))
