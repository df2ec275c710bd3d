"""Exported weights against the live model's, over families, ranks, strategies and LoRA. fp32 is compared bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix.errors import ConfigError, ExportError
from medix_verl.export import safetensors_file
from medix_verl.export.reread import refuse_changed_weights

from .conftest import Recipe, live_model
from .exports import edit, loaded, quiet, run, state_of

pytestmark = pytest.mark.slow  # imports torch and transformers, forks ranks

CASES = {
    "one rank": Recipe(world=1),
    "two ranks, uneven": Recipe(world=2),
    "five ranks, the last with the least": Recipe(world=5),
    "four ranks, HSDP 2 x 2": Recipe(world=4, fsdp_size=2),
    "FSDP1, two ranks": Recipe(strategy="fsdp1"),
    "FSDP1, HSDP 2 x 2": Recipe(strategy="fsdp1", world=4, fsdp_size=2),
    "not wrapped, one rank": Recipe(strategy="plain", world=1),
    "bf16": Recipe(dtype="bfloat16"),
    "tied": Recipe(tied=True),
    "Qwen3-VL": Recipe("qwen3_vl"),
    "Qwen3-VL tied, FSDP1": Recipe("qwen3_vl", tied=True, strategy="fsdp1"),
    "Qwen3-VL MoE, no expert for the third rank": Recipe("qwen3_vl_moe", world=3),
    "LoRA": Recipe(lora=True),
    "LoRA on Qwen3-VL, FSDP1": Recipe("qwen3_vl", lora=True, strategy="fsdp1"),
    "LoRA in bf16": Recipe(lora=True, dtype="bfloat16"),
}


STRATEGIES = {
    "four ranks, HSDP 2 x 2": "fsdp2 ddp=2 fsdp=2",
    "FSDP1, HSDP 2 x 2": "fsdp1 ddp=2 fsdp=2",
    "not wrapped, one rank": "fsdp2 unsharded",
}


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
    assert proof.strategy == STRATEGIES.get(case, f"{recipe.strategy} fsdp={recipe.world}")


def test_experts_are_written_as_qwen_publishes_them(sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    """[experts, in, out], which vLLM takes for granted; transformers' own save keeps [experts, out, in]."""
    recipe = Recipe("qwen3_vl_moe", world=3)
    run(sharded(recipe), tmp_path / "out")
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    written, live = state_of(tmp_path / "out")[name], live_model(recipe).state_dict()[name]
    assert tuple(live.shape) == (4, 48, 32)
    assert tuple(written.shape) == (4, 32, 48)
    assert written.equal(live.transpose(1, 2))


def test_a_released_easyr1_checkpoint(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    """No fsdp_config.json, a config.json of transformers 4, and experts that were held as they are saved."""
    recipe = Recipe("qwen3_vl_moe", strategy="plain", world=1, dtype="bfloat16")
    actor = copy_of(recipe)
    (actor / "fsdp_config.json").unlink()

    def turn(state: dict[str, Any]) -> None:
        for key in [key for key in state if ".mlp.experts." in key]:
            state[key] = state[key].transpose(1, 2).contiguous()

    edit(actor, turn)
    config = json.loads((actor / "huggingface/config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    config["attn_implementation"] = "flash_attention_2"
    (actor / "huggingface/config.json").write_text(json.dumps(config))
    proof = run(actor, tmp_path / "out")
    live, found = live_model(recipe).state_dict(), loaded(tmp_path / "out", recipe).state_dict()
    assert [key for key in live if not live[key].equal(found[key])] == []
    assert (proof.dtype, proof.dtype_from) == ("bfloat16", "config.json")
    assert proof.strategy == "unknown (no fsdp_config.json) unsharded"
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["dtype"] == "bfloat16"
    assert not {"torch_dtype", "attn_implementation"} & written.keys()


def test_another_dtype_is_rounded_as_torch_rounds(sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    import torch

    proof = run(sharded(Recipe()), tmp_path / "out", dtype="bfloat16")
    live, found = live_model(Recipe()).state_dict(), loaded(tmp_path / "out", Recipe(dtype="bfloat16")).state_dict()
    assert [key for key in live if not live[key].to(torch.bfloat16).equal(found[key])] == []
    assert (proof.dtype, proof.dtype_from, proof.checkpoint_dtypes) == ("bfloat16", "option", ["float32"])
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_many_files_have_an_index_and_the_same_digest(
    sharded: Callable[[Recipe], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(sharded(Recipe()), tmp_path / "whole")
    monkeypatch.setattr(safetensors_file, "FILE_BYTES", 20_000)
    split = run(sharded(Recipe()), tmp_path / "split")
    assert len(split.files) > 5
    assert split.digest == whole.digest
    for name, proof in (("whole", whole), ("split", split)):  # what a later push holds the folder against
        (tmp_path / name / "export.json").write_text(json.dumps({"weights": proof.as_dict()}))
        refuse_changed_weights(tmp_path / name, quiet)
    assert state_of(tmp_path / "split").keys() == state_of(tmp_path / "whole").keys()
    loaded(tmp_path / "split", Recipe())


def test_tied_weights_that_differ_are_refused(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(Recipe(strategy="plain", world=1, tied=True))
    edit(actor, lambda state: state.update({"lm_head.weight": state["lm_head.weight"] + 1}))
    with pytest.raises(ExportError, match="the two were trained apart"):
        run(actor, tmp_path / "out")


def test_values_beyond_float16_are_refused(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(Recipe(strategy="plain", world=1))
    edit(actor, lambda state: state["lm_head.weight"].fill_(70_000.0))
    with pytest.raises(ExportError, match="beyond its range"):
        run(actor, tmp_path / "out", dtype="float16")


def test_what_was_asked_must_make_sense(sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float8"):
        run(sharded(Recipe()), tmp_path / "one", dtype="float8")
    with pytest.raises(ExportError, match="without adapters"):
        run(sharded(Recipe()), tmp_path / "two", lora="adapter")


@pytest.mark.parametrize("named", ["auto", "float64", "int8"])
def test_a_config_that_names_no_dtype_to_write_is_refused(
    named: str, copy_of: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    actor = copy_of(Recipe(strategy="plain", world=1))
    path = actor / "huggingface/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": named}))
    with pytest.raises(ExportError, match=f"as dtype in the checkpoint's config.json; found '{named}'. Fix: --dtype"):
        run(actor, tmp_path / "out")
    if named == "auto":  # transformers itself cannot load this
        with pytest.raises(ExportError, match=r"a config\.json that transformers loads; found AttributeError"):
            run(actor, tmp_path / "named", dtype="float32")
    else:
        assert run(actor, tmp_path / "named", dtype="float32").dtype == "float32"


def test_code_of_the_checkpoint_is_not_run(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(Recipe(strategy="plain", world=1))
    path = actor / "huggingface/config.json"
    config = json.loads(path.read_text()) | {"architectures": ["EvilForCausalLM"], "auto_map": {"AutoConfig": "e.E"}}
    path.write_text(json.dumps(config))
    (actor / "huggingface/e.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ExportError, match="a model class of transformers"):
        run(actor, tmp_path / "out")
