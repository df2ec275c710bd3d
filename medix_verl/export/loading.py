"""Loads an exported folder as its users will: transformers' own classes, nothing ignored, no code of the folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from medix.errors import ExportError
from medix_verl.export.json_files import read_json
from medix_verl.export.probes import Probe, model_inputs


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def sees_images(folder: Path) -> bool:
    return "vision_config" in read_json(folder / "config.json")


def load_processor(folder: Path, with_images: bool) -> Any:
    """Processor, or the tokenizer of a text-only model."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoProcessor, AutoTokenizer

    return (AutoProcessor if with_images else AutoTokenizer).from_pretrained(folder)


def auto_class(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    return AutoModelForImageTextToText if sees_images(folder) else AutoModelForCausalLM


def load_model(folder: Path, base: Path | None, dtype: str) -> tuple[Any, dict[str, int]]:
    """(model in evaluation mode, how many keys were missing, unexpected or of another shape: all 0).

    Where `folder` holds an adapter, it is put on the base model.

    Raises:
        ExportError: transformers would have made weights up, or left some of the folder's aside.
    """
    import torch

    source = base if is_adapter(folder) and base is not None else folder
    model, info = auto_class(source).from_pretrained(source, dtype=getattr(torch, dtype), output_loading_info=True)
    counts = {name: len(info.get(name) or ()) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    for name, number in counts.items():
        if number:
            raise ExportError(
                "no missing, unexpected or mismatched key when transformers loads the folder",
                f"{number} {name.replace('_', ' ')}, such as {min(map(str, info[name]))}",
                "this is a fault of the export: report it with export.json's part of the checkpoint",
            )
    if source is not folder:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    return model.eval(), counts


def response_log_probs(model: Any, processor: Any, probe: Probe, with_images: bool) -> list[float]:
    """Log-probability of each token of the probe's fixed response, given the prompt; computed in float32."""
    import torch

    prompt_length = model_inputs(processor, probe, with_images)["input_ids"].shape[1]
    inputs = model_inputs(processor, probe, with_images, probe.response)
    with torch.no_grad():
        logits = model(**inputs).logits[0, prompt_length - 1 : -1].float()
    targets = inputs["input_ids"][0, prompt_length:]
    values = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]
    return [float(value) for value in values]
