"""An FSDP2 model whose parameters are a checkpoint's raw shards, one process a shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medix.export.json_files import read_json_if_there
from medix.export.loading import auto_class


class NotComparable(Exception):
    """Why this checkpoint can not be loaded this way; a reason for export.json, not a fault of the checkpoint."""


def mesh_size(actor: Path, world_size: int) -> int:
    """Ranks that hold the model once: all of them, or the first replica of a ddp x fsdp mesh."""
    from torch.distributed.tensor import DTensor

    shard = _read_shard(actor, world_size, 0)
    for tensor in shard.values():
        if isinstance(tensor, DTensor):
            return int(tensor.device_mesh.mesh.shape[-1])
    return 1


def load_sharded(actor: Path, request: dict[str, Any], rank: int, mesh: Any) -> tuple[Any, float | None]:
    """(FSDP2 model in evaluation mode, LoRA's alpha or None). Weights are float32, rounded to `round_to` before.

    Raises:
        NotComparable: the checkpoint's keys are not those of the class in the installed transformers.
    """
    import torch
    from accelerate import init_empty_weights
    from torch.distributed.tensor import DTensor
    from transformers import AutoConfig

    shard = _read_shard(actor, request["world_size"], rank)
    config = AutoConfig.from_pretrained(request["config"])
    # Parameters without memory; buffers, which no checkpoint holds, are computed.
    with init_empty_weights(include_buffers=False):
        model = auto_class(Path(request["config"])).from_config(config, dtype=torch.float32)
    alpha = None
    if any("lora_" in key for key in shard):
        alpha = _lora_alpha(actor)
        model = _with_lora(model, shard, alpha)
    _shard_over(model, mesh)
    rounded = getattr(torch, request["round_to"]) if alpha is None else torch.float32
    wanted = model.state_dict()
    if wanted.keys() != shard.keys():
        other = min(wanted.keys() ^ shard.keys())
        raise NotComparable(f"its keys are not those of {type(model).__name__} here, such as {other}")
    for key in list(shard):
        saved = shard.pop(key)
        local = (saved.to_local() if isinstance(saved, DTensor) else saved).to(rounded).float()
        target = wanted[key]
        if isinstance(target, DTensor):
            # FSDP1 on one rank saves plain tensors.
            same = saved.placements[-1] == target.placements[-1] if isinstance(saved, DTensor) else mesh.size() == 1
            if not same:
                raise NotComparable(f"{key} is laid out in another way than FSDP2 does")
            wanted[key] = DTensor.from_local(
                local, mesh, target.placements, run_check=False, shape=target.shape, stride=target.stride()
            )
        else:
            wanted[key] = local
    model.load_state_dict(wanted, strict=True, assign=True)
    return model.eval(), alpha


def _read_shard(actor: Path, world_size: int, rank: int) -> dict[str, Any]:
    import torch

    path = actor / f"model_world_size_{world_size}_rank_{rank}.pt"
    shard: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return shard


def _shard_over(model: Any, mesh: Any) -> None:
    """Each block of a stack is a unit of its own; the rest, with tied weights, is the root's."""
    from torch import nn
    from torch.distributed.fsdp import fully_shard

    for module in list(model.modules()):
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            for block in module:
                if any(True for _ in block.parameters()) and hasattr(block, "forward"):
                    fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _lora_alpha(actor: Path) -> float:
    meta = read_json_if_there(actor, "lora_train_meta.json")
    if not isinstance(meta.get("lora_alpha"), int | float) or not meta["lora_alpha"]:
        raise NotComparable("lora_train_meta.json, which says LoRA's alpha, is not there")
    return float(meta["lora_alpha"])


def _with_lora(model: Any, shard: dict[str, Any], alpha: float) -> Any:
    from peft import LoraConfig, get_peft_model

    mark, prefix = ".lora_A.default.weight", "base_model.model."
    ranks = {key.removesuffix(mark).removeprefix(prefix): t.shape[0] for key, t in shard.items() if key.endswith(mark)}
    config = LoraConfig(r=max(ranks.values()), lora_alpha=int(alpha), target_modules=list(ranks))
    return get_peft_model(model, config)
