"""Exported weights against the live model's, over families, ranks, strategies and LoRA. fp32 is compared bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix.export.contract import WeightProof
from medix.export.locate import locate
from medix.export.weights import export_weights

from .conftest import Recipe, live_model

pytestmark = pytest.mark.slow  # imports torch and transformers, forks ranks

CASES = {
    "one rank": Recipe(world=1),
    "two ranks, uneven": Recipe(world=2),
    "three ranks, more than some tensors have rows": Recipe(world=5),
    "four ranks, HSDP 2 x 2": Recipe(world=4, fsdp_size=2),
    "FSDP1, two ranks": Recipe(strategy="fsdp1"),
    "FSDP1, HSDP 2 x 2": Recipe(strategy="fsdp1", world=4, fsdp_size=2),
    "not wrapped, one rank": Recipe(strategy="plain", world=1),
    "bf16": Recipe(dtype="bfloat16"),
    "tied": Recipe(tied=True),
    "Qwen3-VL": Recipe("qwen3_vl"),
    "Qwen3-VL tied, FSDP1": Recipe("qwen3_vl", tied=True, strategy="fsdp1"),
    "Qwen3-VL MoE": Recipe("qwen3_vl_moe", world=3),
    "LoRA": Recipe(lora=True),
    "LoRA on Qwen3-VL, FSDP1": Recipe("qwen3_vl", lora=True, strategy="fsdp1"),
    "LoRA in bf16": Recipe(lora=True, dtype="bfloat16"),
}


def quiet(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def run(actor: Path, target: Path, dtype: str | None = None, lora: Any = "fold") -> WeightProof:
    target.mkdir()
    return export_weights(locate(actor), target, dtype=dtype, lora=lora, progress=quiet)


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


@pytest.mark.parametrize("case", CASES)
def test_the_export_loads_as_the_live_model(case: str, sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    import torch

    recipe = CASES[case]
    proof = run(sharded(recipe), tmp_path / "out")
    live = live_model(recipe)
    if recipe.lora:
        live = live.float().merge_and_unload().to(getattr(torch, recipe.dtype))
    wanted, found = live.state_dict(), loaded(tmp_path / "out", recipe).state_dict()
    assert wanted.keys() == found.keys()
    assert [key for key in wanted if not torch.equal(wanted[key], found[key])] == []
    assert proof.dtype == recipe.dtype
    assert proof.parameters == sum(parameter.numel() for parameter in live.parameters())
    assert proof.tied == (["lm_head.weight"] if recipe.tied else [])
    assert len(proof.shards) == recipe.world
