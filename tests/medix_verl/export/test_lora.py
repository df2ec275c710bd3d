"""LoRA checkpoints: folded, alone, and the ones that are refused. Whole folds are compared in test_weights.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix.errors import ExportError

from .conftest import Recipe, live_model
from .exports import edit, run, state_of

pytestmark = pytest.mark.slow  # imports torch and transformers, forks ranks

PLAIN_LORA = Recipe(strategy="plain", world=1, lora=True)


@pytest.mark.parametrize("recipe", [Recipe(lora=True), Recipe("qwen3_vl", lora=True, strategy="fsdp1")])
def test_an_adapter_alone_does_what_the_live_one_does(
    recipe: Recipe, sharded: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    proof = run(sharded(recipe), tmp_path / "adapter", lora="adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert named_base(tmp_path / "adapter") is None  # no config.yaml says what it was trained on
    live = live_model(recipe)
    wanted = live.merge_and_unload().state_dict()
    base = live_model(recipe).unload()
    found = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    assert [key for key in wanted if not wanted[key].equal(found[key])] == []
    assert proof.lora is not None
    # r 4 and alpha 6, as tests/medix_verl/export/conftest.py trains.
    assert (proof.lora.mode, proof.lora.rank, proof.lora.alpha, proof.lora.scale) == ("adapter", 4, 6.0, 1.5)


def named_base(folder: Path) -> str | None:
    return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


def test_an_adapter_names_the_base_that_was_given(sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    (tmp_path / "Qwen").mkdir()
    (tmp_path / "Qwen/config.json").write_text("{}")
    run(sharded(PLAIN_LORA), tmp_path / "adapter", lora="adapter", base=tmp_path / "Qwen")
    assert named_base(tmp_path / "adapter") == "Qwen"


def test_a_fold_is_counted(sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    proof = run(sharded(Recipe(lora=True)), tmp_path / "out")
    assert proof.lora is not None
    # Two layers of 7 linear modules; two vision blocks of 5 (qkv, proj, gate, up, down); the merger's 2.
    assert proof.lora.pairs == proof.lora.changed == 2 * 7 + 2 * 5 + 2
    assert proof.lora.largest_update > 0


def lora_names(state: dict[str, Any]) -> list[str]:
    return [key for key in state if ".lora_" in key]


def only_adapters(state: dict[str, Any]) -> None:
    for key in state.keys() - set(lora_names(state)):
        del state[key]


def half_a_pair(state: dict[str, Any]) -> None:
    del state[lora_names(state)[0]]


def dora(state: dict[str, Any]) -> None:
    key = lora_names(state)[0]
    state[key.replace(".lora_A.default.weight", ".lora_magnitude_vector.default.weight")] = state[key]


def second_adapter(state: dict[str, Any]) -> None:
    key = lora_names(state)[0]
    state[key.replace(".default.", ".other.")] = state[key]


def another_rank(state: dict[str, Any]) -> None:
    key = lora_names(state)[0]
    state[key] = state[key][:2].clone()


def no_adapters(state: dict[str, Any]) -> None:
    for key in lora_names(state):
        del state[key]


BROKEN_LORA: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "only adapters were saved": (only_adapters, "base weights to fold the adapters into"),
    "half a pair": (half_a_pair, "only lora_B"),
    "DoRA": (dora, "another kind"),
    "a second adapter": (second_adapter, "adapter 'other'"),
    "another rank than the run's": (another_rank, "adapters of rank 4"),
    "no adapters": (no_adapters, "found none"),
    "an adapter without its weight": (lambda state: state.pop(base_of(state)), "a base weight for every adapter"),
}


def base_of(state: dict[str, Any]) -> str:
    return next(key for key in state if key.endswith("q_proj.base_layer.weight"))


@pytest.mark.parametrize("case", BROKEN_LORA)
def test_a_lora_checkpoint_that_cannot_be_folded_is_refused(
    case: str, copy_of: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    change, message = BROKEN_LORA[case]
    actor = copy_of(PLAIN_LORA)
    edit(actor, change)
    with pytest.raises(ExportError) as refused:
        run(actor, tmp_path / "out")
    assert message in str(refused.value)


def test_adapters_saved_alone_can_be_exported_alone(copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(PLAIN_LORA)
    edit(actor, only_adapters)
    run(actor, tmp_path / "out", lora="adapter")
    assert len(state_of(tmp_path / "out")) == 2 * (2 * 7 + 2 * 5 + 2)


@pytest.mark.parametrize("meta", [None, "{}", '{"r": 4, "lora_alpha": 0}'])
def test_rank_and_alpha_are_not_guessed(meta: str | None, copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(PLAIN_LORA)
    path = actor / "lora_train_meta.json"
    path.unlink() if meta is None else path.write_text(meta)
    with pytest.raises(ExportError, match="LoRA rank and alpha above 0"):
        run(actor, tmp_path / "out")
