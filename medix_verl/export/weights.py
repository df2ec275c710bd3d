"""The weights of a checkpoint as safetensors: read from the shards, proved, and written piece by piece."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from medix.errors import ConfigError, ExportError
from medix_verl.export.base_model import find_base
from medix_verl.export.contract import Checkpoint, LoraMode, LoraProof, Progress, ShardProof, WeightProof
from medix_verl.export.expected import Expected, expected_of
from medix_verl.export.lora import Lora, is_lora, take_apart, write_adapter_config
from medix_verl.export.model_config import checkpoint_dtype, write_model_config
from medix_verl.export.plan import Folds, plan_adapter, plan_model
from medix_verl.export.safetensors_file import Output, write_tensors
from medix_verl.export.shards import ShardSet, open_shards
from medix_verl.export.steps import prove_one_save

DTYPES = ("float32", "bfloat16", "float16")


def export_weights(
    checkpoint: Checkpoint,
    target: Path,
    *,
    dtype: str | None,
    lora: LoraMode,
    progress: Progress,
    base: Path | None = None,
) -> WeightProof:
    """Write the model's weights and config.json (or the adapter's) into `target`.

    Peak memory is that of the libraries plus the largest single tensor that has to be folded or turned; plain FSDP
    checkpoints stream in chunks of a few megabytes.

    Args:
        base: folder of the base model, which an adapter names; None where the run names it.

    Raises:
        ConfigError: `dtype` is unknown.
        ExportError: the checkpoint is not whole, not what its model class expects, or not finite.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"a dtype of {', '.join(DTYPES)}", dtype, "--dtype bfloat16")
    shards = open_shards(checkpoint)
    proved, unproved = _evidence(checkpoint, shards)
    adapters = take_apart(checkpoint, shards.tensors) if is_lora(shards.tensors) else None
    if adapters is None and lora == "adapter":
        raise ExportError("a LoRA checkpoint for an adapter", "one without adapters", "leave the adapter flag out")
    wanted = dtype or _dtype_of(checkpoint)
    progress("building the model class", 0, 1)
    expected = expected_of(checkpoint.base_files)
    _refuse_other_model(expected, shards, adapters, lora)
    _check_bytes(shards, progress)
    if adapters is not None and lora == "adapter":
        plan = plan_adapter(adapters, wanted)
        write_adapter_config(target, adapters, find_base(checkpoint, base).shown)
    else:
        plan = plan_model(shards.tensors if adapters is None else adapters.base, expected, adapters, wanted)
        write_model_config(checkpoint.base_files, target, expected.class_name, wanted)
    _refuse_small_disk(target, plan.outputs)
    stem = "adapter_model" if adapters is not None and lora == "adapter" else "model"
    written = write_tensors(target, stem, plan.outputs, progress)
    if adapters is not None and lora == "fold" and not plan.folds.changed:
        unproved.append("that LoRA changed anything: every B @ A is zero, as before the first update")
    return WeightProof(
        tensors=len(plan.outputs),
        parameters=sum(math.prod(output.shape) for output in plan.outputs),
        bytes=sum(output.bytes for output in plan.outputs),
        digest=written.digest,
        dtype=wanted,
        dtype_from="option" if dtype else "config.json",
        checkpoint_dtypes=sorted({tensor.dtype for tensor in shards.tensors.values()}),
        files=written.files,
        world_size=checkpoint.world_size,
        strategy=_strategy(checkpoint, shards),
        shards=[ShardProof(archive.path.name, archive.size, archive.digest) for archive in shards.archives],
        tied=plan.tied,
        lora=None if adapters is None else _lora_proof(adapters, lora, plan.folds),
        proved=proved,
        unproved=unproved,
    )


def _dtype_of(checkpoint: Checkpoint) -> str:
    named = checkpoint_dtype(checkpoint.base_files)
    if named not in DTYPES:
        raise ExportError(f"{', '.join(DTYPES)} as dtype in the checkpoint's config.json", repr(named), "--dtype bf16")
    return named


def _evidence(checkpoint: Checkpoint, shards: ShardSet) -> tuple[list[str], list[str]]:
    proved, unproved = prove_one_save(checkpoint, shards.archives)
    if shards.rank_witnesses:
        proved.append(f"every shard is of its file name's rank, by {' and '.join(shards.rank_witnesses)}")
    else:
        unproved.append("that every shard is of its file name's rank: the shards do not say which rank wrote them")
    if shards.replicas > 1:
        proved.append(f"the {shards.replicas} replicas of every tensor are equal")
    return proved, unproved


def _check_bytes(shards: ShardSet, progress: Progress) -> None:
    total, done = sum(archive.size for archive in shards.archives), 0
    for archive in shards.archives:

        def read(count: int, name: str = archive.path.name) -> None:
            nonlocal done
            done += count
            progress(f"checking {name}", done, total)

        archive.check(read)


def _refuse_other_model(expected: Expected, shards: ShardSet, adapters: Lora | None, lora: LoraMode) -> None:
    if adapters is None or adapters.base:
        tensors = shards.tensors if adapters is None else adapters.base
        expected.refuse_other({key: tensor.shape for key, tensor in tensors.items()})
    elif lora == "fold":
        found = "adapters only (the run saved with save_lora_only)"
        raise ExportError("base weights to fold the adapters into", found, "export the adapter alone: --lora adapter")
    for key, pair in adapters.pairs.items() if adapters is not None else ():
        if key in expected.tied or expected.shapes.get(key) != (pair.b.shape[0], pair.a.shape[-1]):
            found = f"one for {key}"
            raise ExportError(f"adapters on untied linear layers of {expected.class_name}", found, "train without it")


def _refuse_small_disk(target: Path, outputs: list[Output]) -> None:
    needed, free = sum(output.bytes for output in outputs), shutil.disk_usage(target).free
    if needed > free:
        raise ExportError(
            f"{needed / 1e9:.1f} GB free for the weights", f"{free / 1e9:.1f} GB at {target}", "make room"
        )


def _strategy(checkpoint: Checkpoint, shards: ShardSet) -> str:
    path = checkpoint.actor / "fsdp_config.json"
    version = json.loads(path.read_text(encoding="utf-8")).get("FSDP_version") if path.is_file() else None
    name = f"fsdp{version}" if version else "unknown (no fsdp_config.json)"
    return f"{name} {shards.mesh.describe()}" if shards.mesh is not None else f"{name} unsharded"


def _lora_proof(adapters: Lora, mode: LoraMode, folds: Folds) -> LoraProof:
    return LoraProof(
        mode, adapters.rank, adapters.alpha, adapters.scale, len(adapters.pairs), folds.changed, folds.largest
    )
