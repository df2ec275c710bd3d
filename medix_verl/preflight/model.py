"""A model's size: every tensor of its class, built on the meta device from its `config.json`; no weights are read.

torch and transformers take many seconds to import, so the class is built in a child process, once for each
`config.json`. `known_models.json` holds the results for the models of the recipes, so that a run can be estimated
before anything is downloaded; a test builds each of them again.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from medix.errors import ConfigError
from medix.files import read_mapping
from medix.processes import child_environment, python_command
from medix_verl.preflight.check import Check

KNOWN_MODELS = Path(__file__).with_name("known_models.json")
_AGAIN = "Build or download the model again."


@dataclass(frozen=True)
class ModelShape:
    """Counts of elements, not of bytes."""

    tensors: tuple[tuple[int, int, int], ...]
    """(how many, rows, elements a row) of the parameters, tied ones once. FSDP2 shards the rows."""
    vision_parameters: int
    layer_parameters: int
    """Of one decoder layer, which FSDP gathers as a whole."""
    root_parameters: int
    """Outside of decoder layers, vision blocks and token embeddings: FSDP keeps them gathered through an update."""
    adapted_width: int
    """Input and output widths of one decoder layer's linear maps, added up: a LoRA of rank r adds r times that."""
    layers: int
    hidden: int
    feed_forward: int
    """Width that one token passes through: all chosen experts together in a mixture."""
    idle_parameters: int
    """Of the experts that one token does not pass through; 0 for a dense model."""
    vocabulary: int
    vision_width: int
    """Widths of the vision tower's blocks, added up; 0 for a language model."""
    kv_width: int
    """Key and value elements that one token leaves in one layer."""
    kv_heads: int
    tied: bool
    """Whether input and output embeddings are one tensor."""
    family: str
    """`model_type` of the configuration, e.g. qwen2_5_vl."""

    @property
    def parameters(self) -> int:
        return sum(count * rows * width for count, rows, width in self.tensors)

    def lora_parameters(self, rank: int) -> int:
        """Return the size of adapters on every linear map of the decoder (`target_modules: all-linear`)."""
        return rank * self.adapted_width * self.layers


def shape_of(path: str) -> ModelShape | None:
    """Return the shape of the model in a folder, in the hub client's cache, or known by its hub name; else None.

    Raises:
        ConfigError: its config.json can not be read, or transformers has no class for it.
    """
    file = config_file(path)
    if file is None:
        known = json.loads(KNOWN_MODELS.read_text(encoding="utf-8")).get(path)
        return _shape(known["shape"]) if known else None
    return _shape(_built(str(file.resolve()), hashlib.sha256(file.read_bytes()).hexdigest()))


def config_file(path: str) -> Path | None:
    """Return the config.json of a model folder, or of a hub name in the hub client's cache; no connection is made."""
    file = Path(path) / "config.json"
    if file.is_file() or not hub_name(path):
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, "config.json")
    return Path(found) if isinstance(found, str) else None


def hub_name(path: str) -> bool:
    """Return whether a model setting is a name on the hub (USER/MODEL) rather than a folder."""
    return path.count("/") == 1 and not Path(path).exists() and not path.startswith((".", "/", "~", "outputs/"))


def check_model_folder(path: str) -> str | Check:
    """Check that there is a Hugging Face folder with weights, tokenizer and processor."""
    folder = Path(path)
    if hub_name(path):
        return f"{path}: taken as a hub name"
    if not folder.is_dir():
        raise ConfigError(
            f"There is no model folder at {path}.",
            f"Set MODEL= to a folder or a hub name; `python -m examples.tiny_vlm --out {path}` builds a tiny one.",
        )
    if missing := missing_files(folder, "config.json", "preprocessor_config.json", "tokenizer_config.json"):
        raise ConfigError(f"The model in {path} has no {', '.join(missing)}.", _AGAIN)
    check_readable(folder)
    return f"{path} holds weights, tokenizer and processor"


def check_readable(folder: Path) -> None:
    """Check the files of a model's folder for a download that was cut off; no weights are read, but their headers.

    Raises:
        MedixError: a file can not be read, or the index names weights that are not there.
    """
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json"):
        if (folder / name).is_file():
            read_mapping(folder / name)  # says what is wrong with a broken file
    index = folder / "model.safetensors.index.json"
    shards = read_mapping(index).get("weight_map") if index.is_file() else {}
    if not isinstance(shards, dict):
        raise ConfigError(f"{index} names no weights.", _AGAIN)
    if lacking := sorted(set(map(str, shards.values())) - {file.name for file in folder.iterdir()}):
        raise ConfigError(f"The model in {folder} has no {', '.join(lacking)}.", _AGAIN)
    for weights in folder.glob("*.safetensors"):
        try:
            with safe_open(weights, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{weights} can not be read: {error}", _AGAIN) from error


def missing_files(folder: Path, *names: str) -> list[str]:
    """Return which of these files a model's folder lacks; it always needs weights."""
    return [name for name in (*names, "*.safetensors") if not any(path.is_file() for path in folder.glob(name))]


@cache
def _built(file: str, _digest: str) -> dict[str, Any]:
    read_mapping(Path(file))  # says what is wrong with a broken file
    command = python_command(__name__, file)
    run = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=600)
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"transformers can not build the model of {file}: {reason}", "Name another model.")
    built: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return built


def _shape(counts: dict[str, Any]) -> ModelShape:
    return ModelShape(**{**counts, "tensors": tuple(tuple(row) for row in counts["tensors"])})


def measure(config: Any) -> dict[str, Any]:
    """Return the fields of `ModelShape` for a transformers configuration, from its class on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config, dtype=torch.float32)
    text = config.get_text_config()
    decoder = model.get_decoder()
    layer = decoder.layers[0]
    experts = getattr(text, "num_experts", 0) or getattr(text, "num_local_experts", 0) or 0
    chosen = text.num_experts_per_tok if experts else 1
    held = sum(tensor.numel() for tensor in layer.parameters() if tensor.ndim == 3)
    vision = getattr(model.model, "visual", None)
    blocks = getattr(vision, "blocks", [])
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    shapes = Counter((tensor.shape[0], tensor.numel() // tensor.shape[0]) for tensor in model.parameters())
    grouped = [*decoder.layers, *blocks, model.get_input_embeddings()]
    if not config.tie_word_embeddings:
        grouped.append(model.get_output_embeddings())
    inside = sum(tensor.numel() for module in grouped for tensor in module.parameters())
    return {
        "tensors": sorted([count, rows, width] for (rows, width), count in shapes.items()),
        "vision_parameters": sum(tensor.numel() for tensor in vision.parameters()) if vision is not None else 0,
        "layer_parameters": sum(tensor.numel() for tensor in layer.parameters()),
        "root_parameters": sum(tensor.numel() for tensor in model.parameters()) - inside,
        # Adapters are put on `Linear` modules; the experts of a mixture are plain tensors.
        "adapted_width": sum(m.in_features + m.out_features for m in layer.modules() if isinstance(m, torch.nn.Linear)),
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
        "feed_forward": (text.moe_intermediate_size if experts else text.intermediate_size) * chosen,
        "idle_parameters": text.num_hidden_layers * held * (experts - chosen) // experts if experts else 0,
        "vocabulary": text.vocab_size,
        "vision_width": len(blocks) * config.vision_config.hidden_size if len(blocks) else 0,
        "kv_width": 2 * heads * width,
        "kv_heads": heads,
        "tied": bool(config.tie_word_embeddings),
        "family": config.model_type,
    }


if __name__ == "__main__":
    import sys

    from transformers import AutoConfig

    print(json.dumps(measure(AutoConfig.for_model(**read_mapping(Path(sys.argv[1]))))))
