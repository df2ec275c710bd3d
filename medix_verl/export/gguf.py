"""What llama.cpp's convert_hf_to_gguf.py needs, looked for in an exported folder. Nothing is converted here.

After reading llama.cpp's `conversion/` (base.py, qwenvl.py, qwen3vl.py): the text model and the projector ("mmproj")
are two files from two runs over the same folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix_verl.export.behaviour import stored
from medix_verl.export.image_processor import image_settings
from medix_verl.export.json_files import read_json, read_json_if_there
from medix_verl.export.loading import is_adapter
from medix_verl.export.token_files import TokenFiles

ARCHITECTURES: Final = (
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
)
"""Registered in the converter both for the text model and for the projector."""
OUTTYPES: Final = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
TEXT_KEYS: Final = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "vocab_size",
)
VISION_KEYS: Final = ("depth", "hidden_size", "intermediate_size", "num_heads", "patch_size", "spatial_merge_size")
PROCESSOR_KEYS: Final = ("image_mean", "image_std")


def check_gguf_ready(folder: Path) -> dict[str, Any]:
    """What was found, and the two commands, for `export.json` and the card.

    Raises:
        ExportError: something that the converter reads is not there.
    """
    if is_adapter(folder):
        raise ExportError("a whole model for --gguf-ready", "an adapter", "leave --adapter-only out")
    config = read_json(folder / "config.json")
    names = config.get("architectures") or []
    if not names or names[0] not in ARCHITECTURES:
        raise ExportError(
            f"one of {', '.join(ARCHITECTURES)} for --gguf-ready", str(names), "leave --gguf-ready out for this model"
        )
    text, vision = config.get("text_config") or config, config.get("vision_config") or {}
    _require("text_config of config.json", text, TEXT_KEYS)
    _require("vision_config of config.json", vision, VISION_KEYS)
    _require("the image processor's settings", image_settings(folder), PROCESSOR_KEYS)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    _require("the rope settings of config.json", rope, ("mrope_section",))
    tokens = TokenFiles.read(folder)
    if not tokens.merges:
        raise ExportError("merges in tokenizer.json", "none", "the converter reads byte-pair tokenizers")
    dtype = stored(folder)[1]
    return {
        "architecture": names[0],
        "dtype": dtype,
        "tied_embeddings": bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
        "rope_key": "rope_parameters" if "rope_parameters" in text else "rope_scaling",
        "merges": len(tokens.merges),
        "tokenizer_class": read_json_if_there(folder, "tokenizer_config.json").get("tokenizer_class"),
        "commands": gguf_commands(dtype),
        "not_done": "no conversion was run; whether the converter knows this tokenizer's pre-tokenizer, it says itself",
    }


def gguf_commands(dtype: str) -> list[str]:
    """The text model's command and the projector's."""
    outtype = OUTTYPES.get(dtype, "f16")
    return [
        f"python convert_hf_to_gguf.py MODEL --outtype {outtype} --outfile model-{outtype}.gguf",
        f"python convert_hf_to_gguf.py MODEL --mmproj --outtype {outtype} --outfile mmproj-{outtype}.gguf",
    ]


def _require(where: str, settings: Any, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in settings]
    if missing:
        raise ExportError(f"{', '.join(missing)} in {where}, which llama.cpp's converter reads", "none", "see --base")
