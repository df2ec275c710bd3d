"""A checkpoint trained with LoRA: which keys are adapters, what they change, and the weights with it folded in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix.errors import ExportError
from medix_verl.export.contract import Checkpoint
from medix_verl.export.convert import whole
from medix_verl.export.shards import SourceTensor

PEFT_PREFIX = "base_model.model."
_ADAPTER = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.(?P<name>[^.]+)\.weight")
_META = "lora_train_meta.json"


@dataclass(frozen=True)
class Pair:
    """The low-rank change of one weight: `scale * b @ a` with a of shape [rank, in] and b of shape [out, rank]."""

    a: SourceTensor
    b: SourceTensor


@dataclass(frozen=True)
class Lora:
    """A LoRA checkpoint taken apart.

    Attributes:
        base: the base model's tensors under the model class's own keys; empty where only adapters were saved.
        pairs: by the key of the weight that they change.
        rank, alpha: of the training run; the change is scaled by alpha / rank.
    """

    base: Mapping[str, SourceTensor]
    pairs: Mapping[str, Pair]
    rank: int
    alpha: float
    task_type: str

    @property
    def scale(self) -> float:
        """What peft multiplies B @ A with."""
        return self.alpha / self.rank

    def fold(self, key: str, weight: SourceTensor) -> tuple[Any, float]:
        """The weight with its change added, in float32, and the largest absolute change. [out, in]

        In peft's order of operations, so that a float32 export has the very bits of the merged live model.
        """
        pair = self.pairs[key]
        change = (whole(pair.b).float() @ whole(pair.a).float()) * self.scale
        return whole(weight).float() + change, float(change.abs().max())


def is_lora(tensors: Mapping[str, SourceTensor]) -> bool:
    """Whether a checkpoint is one of a peft model."""
    return any(key.startswith(PEFT_PREFIX) for key in tensors)


def take_apart(checkpoint: Checkpoint, tensors: Mapping[str, SourceTensor]) -> Lora:
    """Base weights and adapter pairs of a peft model's checkpoint.

    Raises:
        ExportError: a pair is incomplete or does not fit its weight, the adapter is of a kind other than plain LoRA, or
            rank and alpha are not known.
    """
    base: dict[str, SourceTensor] = {}
    sides: dict[str, dict[str, SourceTensor]] = {}
    for key, tensor in tensors.items():
        bare = key.removeprefix(PEFT_PREFIX)
        match = _ADAPTER.fullmatch(bare)
        if match is None and "lora_" in bare:
            fix = "train with plain LoRA on linear layers, or export without a fold through peft"
            raise ExportError("plain LoRA adapters on linear layers", f"another kind: {key}", fix)
        if match is None:
            base[bare.replace(".base_layer.", ".")] = tensor
        elif match["name"] != "default":
            raise ExportError("one adapter, named default", f"adapter {match['name']!r}", "export a run of medix train")
        else:
            sides.setdefault(f"{match['module']}.weight", {})[match["side"]] = tensor
    rank, alpha, task_type = _settings(checkpoint)
    pairs = {key: _pair(key, side, rank, base.get(key)) for key, side in sides.items()}
    if not pairs:
        raise ExportError("LoRA adapters in a peft model's checkpoint", "none", "export the actor of a LoRA run")
    if base and not pairs.keys() <= base.keys():
        strangers = sorted(pairs.keys() - base.keys())
        raise ExportError("a base weight for every adapter", f"none for {strangers[0]}", "save the checkpoint again")
    return Lora(base, pairs, rank, alpha, task_type)


def _pair(key: str, side: Mapping[str, SourceTensor], rank: int, weight: SourceTensor | None) -> Pair:
    if side.keys() != {"A", "B"}:
        raise ExportError(f"lora_A and lora_B for {key}", f"only lora_{min(side)}", "save the checkpoint again")
    a, b = side["A"], side["B"]
    wanted = weight.shape if weight is not None else (b.shape[0], a.shape[-1])
    if a.shape[0] != rank or b.shape[-1] != rank or (b.shape[0], a.shape[-1]) != wanted:
        found = f"lora_A {a.shape} and lora_B {b.shape} for {key} {wanted}"
        raise ExportError(
            f"adapters of rank {rank} ({_META}) that fit their weight", found, "save the checkpoint again"
        )
    return Pair(a, b)


def _settings(checkpoint: Checkpoint) -> tuple[int, float, str]:
    path = checkpoint.actor / _META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = int(meta["r"]), float(meta["lora_alpha"])
        if rank > 0 and alpha > 0:
            return rank, alpha, str(meta.get("task_type") or "CAUSAL_LM")
        found = f"r {rank}, lora_alpha {alpha}"
    except (OSError, ValueError, KeyError, TypeError):
        found = f"no {_META} that says so in {checkpoint.actor}"
    fix = f'write {{"r": ..., "lora_alpha": ...}} of the run into {path.name}: the change is scaled by alpha / r'
    raise ExportError("LoRA rank and alpha above 0", found, fix)


def write_adapter_config(target: Path, lora: Lora, base_model: str | None) -> None:
    """peft's `adapter_config.json` for the adapter that is written beside it."""
    modules = sorted({key.removesuffix(".weight") for key in lora.pairs})
    config = {
        "peft_type": "LORA",
        "task_type": lora.task_type,
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "target_modules": modules,
    }
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
