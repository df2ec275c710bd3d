"""A child of `medix export`: loads the folder, generates, and writes what it saw. `python -m ... REQUEST ANSWER`.

A child of its own, so that a processor that refuses an instruction or a kernel that runs out of memory ends this and
not the export, and so that its memory is given back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from medix.errors import ExportError
from medix_verl.export.loading import is_adapter, load_model, load_processor, response_log_probs, sees_images
from medix_verl.export.pages import forget_after_use
from medix_verl.export.probes import Probe, model_inputs, probe_image, probes_for


def probe_folder(request: dict[str, Any]) -> dict[str, Any]:
    """What the folder's model does: keys, generations, and the log-probabilities of the fixed responses."""
    folder, base = Path(request["folder"]), Path(request["base"]) if request["base"] else None
    with_images = sees_images(base if is_adapter(folder) and base is not None else folder)
    processor = load_processor(folder, with_images)
    model, keys = load_model(folder, base, request["dtype"])
    forget_after_use(model)
    probes = probes_for(with_images)
    return {
        "class": type(model).__name__,
        "keys": keys,
        "dtype": request["dtype"],
        "image": probe_image()[1] if with_images else None,
        "generations": {
            probe.name: _generate(model, processor, probe, with_images, request["max_new_tokens"]) for probe in probes
        },
        "log_probs": {probe.name: response_log_probs(model, processor, probe, with_images) for probe in probes},
    }


def _generate(model: Any, processor: Any, probe: Probe, with_images: bool, max_new_tokens: int) -> dict[str, Any]:
    """Greedy answer: text, tokens, whether it ended by itself, and how near the second choice was at each token."""
    import torch

    inputs = model_inputs(processor, probe, with_images)
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    with torch.no_grad():
        output = model.generate(
            **inputs, **greedy, max_new_tokens=max_new_tokens, return_dict_in_generate=True, output_scores=True
        )
    tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    stops = model.generation_config.eos_token_id
    stopped = bool(tokens) and tokens[-1] in (stops if isinstance(stops, list) else [stops])
    tokenizer = getattr(processor, "tokenizer", processor)
    best = [torch.topk(scores[0].float(), 2) for scores in output.scores]
    return {
        "question": probe.question,
        "answer": tokenizer.decode(tokens, skip_special_tokens=True),
        "tokens": tokens,
        "terminated": stopped,
        "margins": [round(float(top.values[0] - top.values[1]), 6) for top in best],
        "second": [int(top.indices[1]) for top in best],
    }


def main(request: Path, answer: Path) -> None:
    """Write `{"found": ...}`, or `{"refused": [expected, found, fix]}`, to `answer`."""
    try:
        result: dict[str, Any] = {"found": probe_folder(json.loads(request.read_text()))}
    except ExportError as error:
        result = {"refused": [error.expected, error.found, error.fix]}
    answer.write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
