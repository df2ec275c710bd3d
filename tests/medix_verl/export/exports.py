"""One export of weights, and what is in the folder that it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medix_verl.export.contract import WeightProof
from medix_verl.export.locate import locate
from medix_verl.export.weights import export_weights

from .conftest import Recipe


def quiet(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def run(
    actor: Path, target: Path, dtype: str | None = None, lora: Any = "fold", base: Path | None = None
) -> WeightProof:
    target.mkdir()
    return export_weights(locate(actor), target, dtype=dtype, lora=lora, progress=quiet, base=base)


def loaded(folder: Path, recipe: Recipe) -> Any:
    """By from_pretrained, which must find every key and no other."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    model, info = model_class.from_pretrained(folder, output_loading_info=True, dtype=recipe.dtype)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model


def state_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()}


def edit(actor: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the dictionary of the one shard of an unsharded checkpoint."""
    import torch

    path = actor / "model_world_size_1_rank_0.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
