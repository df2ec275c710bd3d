"""Exported weights against the live model's, over families, ranks, strategies and LoRA. fp32 is compared bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from medix.errors import ExportError
from medix_verl.export import weights
from medix_verl.export.checkpoint import locate

from .conftest import Recipe, live_model

pytestmark = pytest.mark.slow  # imports torch and transformers, forks ranks

CASES = {
    "one rank": Recipe(world=1),
    "two ranks, uneven": Recipe(world=2),
    "five ranks, the last with the least": Recipe(world=5),
    "four ranks, HSDP 2 x 2": Recipe(world=4, fsdp_size=2),
    "FSDP1, two ranks": Recipe(strategy="fsdp1"),
    "not wrapped, one rank": Recipe(strategy="plain", world=1),
    "bf16": Recipe(dtype="bfloat16"),
    "tied": Recipe(tied=True),
    "Qwen3-VL tied, FSDP1, HSDP": Recipe("qwen3_vl", tied=True, strategy="fsdp1", world=4, fsdp_size=2),
    "Qwen3-VL MoE, no expert for the third rank": Recipe("qwen3_vl_moe", world=3),
    "LoRA": Recipe(lora=True),
    "LoRA on Qwen3-VL, FSDP1": Recipe("qwen3_vl", lora=True, strategy="fsdp1"),
    "LoRA in bf16": Recipe(lora=True, dtype="bfloat16"),
}
PLAIN_LORA = Recipe(strategy="plain", world=1, lora=True)


def run(actor: Path, target: Path, dtype: str | None = None, adapter_only: bool = False) -> dict[str, Any]:
    target.mkdir()
    return weights.export_weights(locate(actor), target, dtype, adapter_only, "Qwen", lambda *_: None)


def loaded(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """The state of the folder by from_pretrained, which must find every key and no other."""
    import transformers

    kind = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model, info = kind.from_pretrained(folder, output_loading_info=True, dtype=recipe.dtype)
    assert [info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [set(), set(), set()]
    state: dict[str, Any] = model.state_dict()
    return state


@pytest.mark.parametrize("case", CASES)
def test_the_export_loads_as_the_live_model(case: str, sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    import torch

    recipe = CASES[case]
    found = run(sharded(recipe), tmp_path / "out")
    live = live_model(recipe)
    if recipe.lora:
        live = live.float().merge_and_unload().to(getattr(torch, recipe.dtype))
        # Two layers of 7 linear modules; two vision blocks of 5 or 4; the mergers' 2 each.
        assert found["lora"]["pairs"] == found["lora"]["changed"] >= 2 * 7 + 2 * 4 + 2
    wanted, state = live.state_dict(), loaded(tmp_path / "out", recipe)
    assert wanted.keys() == state.keys()
    assert [key for key in wanted if not torch.equal(wanted[key], state[key])] == []
    assert found["dtype"] == recipe.dtype
    assert found["parameters"] == sum(parameter.numel() for parameter in live.parameters())
    assert found["files"] == {"model.safetensors": weights.file_digest(tmp_path / "out" / "model.safetensors")}


def test_weights_that_find_no_room_are_refused_in_figures_that_differ(
    sharded: Callable[[Recipe], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said `expected 0.0 GB free; found 0.0 GB`."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: Mock(free=2_000))
    with pytest.raises(ExportError, match=r"^0\.[1-9] MB of weights do not fit into the 0\.0 MB free"):
        run(sharded(CASES["one rank"]), tmp_path / "out")


def test_experts_are_written_as_qwen_publishes_them(sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    """[experts, in, out], which vLLM takes for granted; transformers' own save keeps [experts, out, in]."""
    from safetensors.torch import load_file

    recipe = Recipe("qwen3_vl_moe", world=3)
    run(sharded(recipe), tmp_path / "out")
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    written, live = load_file(tmp_path / "out/model.safetensors")[name], live_model(recipe).state_dict()[name]
    assert (tuple(live.shape), tuple(written.shape)) == ((4, 48, 32), (4, 32, 48))
    assert written.equal(live.transpose(1, 2))


def test_another_dtype_is_rounded_as_torch_rounds(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    import torch

    actor = copy_of(Recipe())
    config = json.loads((actor / "huggingface/config.json").read_text()) | {"_attn_implementation": "flash_attention_2"}
    (actor / "huggingface/config.json").write_text(json.dumps(config | {"_name_or_path": "/home/me"}))
    run(actor, tmp_path / "out", dtype="bfloat16")
    live, found = live_model(Recipe()).state_dict(), loaded(tmp_path / "out", Recipe(dtype="bfloat16"))
    assert [key for key in live if not live[key].to(torch.bfloat16).equal(found[key])] == []
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["dtype"] == "bfloat16"
    assert not {"_attn_implementation", "_name_or_path"} & written.keys()


def test_many_files_have_an_index(
    sharded: Callable[[Recipe], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_LEAST_FILE", 20_000)
    found = run(sharded(Recipe()), tmp_path / "out")
    assert len(found["files"]) > 3
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == found["files"].keys()
    live, state = live_model(Recipe()).state_dict(), loaded(tmp_path / "out", Recipe())
    assert [key for key in live if not live[key].equal(state[key])] == []


def edit(actor: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the dictionary of the one shard of an unsharded checkpoint."""
    import torch

    path = actor / "model_world_size_1_rank_0.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize("only_adapters", [False, True])
def test_an_adapter_alone_does_what_the_live_one_does(
    only_adapters: bool, copy_of: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    actor = copy_of(PLAIN_LORA)
    if only_adapters:
        edit(actor, lambda state: [state.pop(key) for key in list(state) if ".lora_" not in key])
    run(actor, tmp_path / "adapter", adapter_only=True)
    wanted = live_model(PLAIN_LORA).merge_and_unload().state_dict()
    base = live_model(PLAIN_LORA).unload()
    found = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    assert [key for key in wanted if not wanted[key].equal(found[key])] == []
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "Qwen"


def a_lora(state: dict[str, Any]) -> str:
    return next(key for key in state if ".lora_A" in key)


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "half a pair": (lambda s: s.pop(a_lora(s)), "do not fit"),
    "DoRA": (lambda s: s.update({a_lora(s).replace("lora_A", "lora_magnitude_vector"): s[a_lora(s)]}), "no plain LoRA"),
    "a second adapter": (lambda s: s.update({a_lora(s).replace("default", "other"): s[a_lora(s)]}), "no plain LoRA"),
    "another rank than the run's": (lambda s: s.update({a_lora(s): s[a_lora(s)][:2].clone()}), "at rank 4"),
    "no weight for an adapter": (
        lambda s: s.pop(next(key for key in s if key.endswith("q_proj.base_layer.weight"))),
        "do not fit",
    ),
    "only adapters": (lambda s: [s.pop(key) for key in list(s) if ".lora_" not in key], "--adapter-only is for"),
    "too large for bf16": (lambda s: next(v for k, v in s.items() if "embed" in k).fill_(3.4e38), "values beyond bf"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_lora_checkpoint_that_can_not_be_folded_is_refused(
    case: str, copy_of: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    change, message = BROKEN[case]
    actor = copy_of(PLAIN_LORA)
    edit(actor, change)
    with pytest.raises(ExportError, match=message):
        run(actor, tmp_path / "out", dtype="bfloat16")


def test_what_can_not_be_known_is_not_guessed(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(PLAIN_LORA)
    (actor / "lora_train_meta.json").write_text('{"r": 4, "lora_alpha": 0}')
    with pytest.raises(ExportError, match="names LoRA's rank and alpha"):
        run(actor, tmp_path / "out")


def test_tied_weights_that_were_trained_apart_are_refused(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(Recipe(strategy="plain", world=1, tied=True))
    edit(actor, lambda state: state.update({"lm_head.weight": state["lm_head.weight"] + 1}))
    with pytest.raises(ExportError, match="the two were trained apart"):
        run(actor, tmp_path / "out")
