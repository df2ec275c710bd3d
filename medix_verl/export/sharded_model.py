"""An FSDP2 model whose parameters are a checkpoint's raw shards, one process a shard."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from medix_verl.export.json_files import read_json_if_there
from medix_verl.export.loading import auto_class
from medix_verl.export.pages import forget_after_use


class NotComparable(Exception):
    """Why this checkpoint can not be loaded this way; a reason for export.json, not a fault of the checkpoint."""


def load_sharded(actor: Path, request: dict[str, Any], rank: int, mesh: Any) -> tuple[Any, float | None]:
    """(FSDP2 model in evaluation mode, LoRA's alpha or None). Weights are float32, rounded to `round_to` before.

    Raises:
        NotComparable: torch can not read the shard, or its keys or shapes are not those of the class in the installed
            transformers.
    """
    import torch
    from accelerate import init_empty_weights
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
        raise NotComparable(
            f"its keys are not those of {type(model).__name__.removeprefix('FSDP')} here, such as {other}"
        )
    for key in list(shard):
        wanted[key] = _as_wanted(key, shard.pop(key), wanted[key], rounded, mesh)
    model.load_state_dict(wanted, strict=True, assign=True)
    forget_after_use(model)
    return model.eval(), alpha


def _as_wanted(key: str, saved: Any, target: Any, rounded: Any, mesh: Any) -> Any:
    """This rank's part of a tensor, in the place that FSDP2 has for it."""
    from torch.distributed.tensor import DTensor

    # The fields themselves: methods of a DTensor ask its mesh, which another release of torch may have pickled.
    cut = isinstance(saved, DTensor)
    local = (saved._local_tensor if cut else saved).to(rounded).float()
    if saved.shape != target.shape:
        # transformers 4 (and so EasyR1) kept experts as [experts, in, out].
        if local.ndim != 3 or saved.shape != target.transpose(1, 2).shape:
            raise NotComparable(f"{key} has the shape {tuple(saved.shape)}, here {tuple(target.shape)}")
        local = local.transpose(1, 2).contiguous()
    if not isinstance(target, DTensor):
        return local
    # FSDP1 on one rank saves plain tensors.
    same = saved._spec.placements[-1] == target.placements[-1] if cut else mesh.size() == 1
    if not same:
        raise NotComparable(f"{key} is laid out in another way than FSDP2 does")
    return DTensor.from_local(
        local, mesh, target.placements, run_check=False, shape=target.shape, stride=target.stride()
    )


def _read_shard(actor: Path, world_size: int, rank: int) -> dict[str, Any]:
    import torch

    path = actor / f"model_world_size_{world_size}_rank_{rank}.pt"
    try:
        shard: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a pickle of another release may fail in any way, and the bytes are proved already
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NotComparable(f"torch {torch.__version__} can not read {path.name} ({reason})") from error
    return shard


def _shard_over(model: Any, mesh: Any) -> None:
    """One layer is gathered at a time. Which units there are does not change how a tensor is cut."""
    from torch.distributed.fsdp import fully_shard

    for module in [*units(model), model]:
        fully_shard(module, mesh=mesh)


def units(model: Any) -> list[Any]:
    """The modules that own weights, those inside others first. Tied weights are left to the root.

    Experts own theirs beside a child, their activation: left to the root, they would be gathered all at once.
    """
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    found = []
    for module in reversed(list(model.modules())):
        own = [id(p) for p in module.parameters(recurse=False)]
        if own and module is not model and all(owners[p] == 1 for p in own):
            found.append(module)
    return found


def _lora_alpha(actor: Path) -> float:
    meta = read_json_if_there(actor, "lora_train_meta.json")
    if not isinstance(meta.get("lora_alpha"), int | float) or not meta["lora_alpha"]:
        raise NotComparable("lora_train_meta.json, which says LoRA's alpha, is not there")
    return float(meta["lora_alpha"])


def _with_lora(model: Any, shard: dict[str, Any], alpha: float) -> Any:
    from peft import LoraConfig, get_peft_model

    mark, prefix = ".lora_A.default.weight", "base_model.model."
    ranks = {key.removesuffix(mark).removeprefix(prefix): t.shape[0] for key, t in shard.items() if key.endswith(mark)}
    # peft only divides alpha by the rank; made a whole number, 0.5 would switch the adapter off.
    fraction: Any = alpha
    config = LoraConfig(r=max(ranks.values()), lora_alpha=fraction, target_modules=list(ranks))
    return get_peft_model(model, config)
