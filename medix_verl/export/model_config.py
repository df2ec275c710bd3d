"""The exported config.json: the checkpoint's, with the dtype and class as written, without marks of the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medix.errors import ExportError

_TRAINING_ONLY = ("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_name_or_path")
"""The trainer's choice of attention kernel would forbid loading on another machine; its path is nobody's business."""


def checkpoint_dtype(base_files: Path) -> str:
    """The dtype that the checkpoint's config.json names; `bfloat16`, as Qwen publishes, where it names none."""
    config = _read(base_files)
    nested = config.get("text_config")
    for part in (config, nested if isinstance(nested, dict) else {}):
        for name in ("dtype", "torch_dtype"):
            if isinstance(part.get(name), str):
                return str(part[name]).removeprefix("torch.")
    return "bfloat16"


def write_model_config(base_files: Path, target: Path, class_name: str, dtype: str) -> None:
    """Write `config.json` into `target`."""
    config = _cleaned(_read(base_files), dtype)
    config["architectures"], config["dtype"] = [class_name], dtype
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _cleaned(part: dict[str, Any], dtype: str) -> dict[str, Any]:
    kept = {name: value for name, value in part.items() if name not in _TRAINING_ONLY and name != "torch_dtype"}
    for name, value in kept.items():
        if isinstance(value, dict) and name.endswith("_config"):
            kept[name] = _cleaned(value, dtype)
        elif name == "dtype":
            kept[name] = dtype
    return kept


def _read(base_files: Path) -> dict[str, Any]:
    path = base_files / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"{type(error).__name__} at {path}"
        raise ExportError("the checkpoint's config.json", found, "the checkpoint was not saved to its end") from None
    return dict(config)
