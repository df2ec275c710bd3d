"""The weights of a checkpoint as safetensors: read from the shards, proved, and written piece by piece."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medix.errors import ConfigError, ExportError
from medix.export.contract import Checkpoint, LoraMode, LoraProof, Progress, ShardProof, WeightProof
from medix.export.convert import FLOATS, is_streamable, stream_bytes, to_bytes, whole
from medix.export.expected import Expected, expected_of
from medix.export.lora import Lora, is_lora, take_apart, write_adapter_config
from medix.export.model_config import checkpoint_dtype, write_model_config
from medix.export.safetensors_file import Output, write_tensors
from medix.export.shards import ShardSet, SourceTensor, open_shards
from medix.export.steps import prove_one_save

DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class _Folds:
    """What folding changed, noted while the weights are written."""

    changed: int = 0
    largest: float = 0.0


@dataclass(frozen=True)
class _Plan:
    outputs: list[Output]
    tied: list[str]
    folds: _Folds = field(default_factory=_Folds)


def export_weights(
    checkpoint: Checkpoint, target: Path, *, dtype: str | None, lora: LoraMode, progress: Progress
) -> WeightProof:
    """Write the model's weights and config.json (or the adapter's) into `target`.

    Peak memory is that of the libraries plus the largest single tensor that has to be folded or turned; plain FSDP
    checkpoints stream in chunks of a few megabytes.

    Raises:
        ConfigError: `dtype` is unknown.
        ExportError: the checkpoint is not whole, not what its model class expects, or not finite.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"a dtype of {', '.join(DTYPES)}", dtype, "--dtype bfloat16")
    shards = open_shards(checkpoint)
    proved, unproved = _evidence(checkpoint, shards)
    _check_bytes(shards, progress)
    adapters = take_apart(checkpoint, shards.tensors) if is_lora(shards.tensors) else None
    if adapters is None and lora == "adapter":
        raise ExportError("a LoRA checkpoint for an adapter", "one without adapters", "leave the adapter flag out")
    expected = expected_of(checkpoint.base_files)
    _refuse_other_model(expected, shards, adapters, lora)
    wanted = dtype or checkpoint_dtype(checkpoint.base_files)
    if adapters is not None and lora == "adapter":
        plan = _adapter_plan(adapters, wanted)
        write_adapter_config(target, adapters, None)
    else:
        plan = _model_plan(shards.tensors if adapters is None else adapters.base, expected, adapters, wanted)
        write_model_config(checkpoint.base_files, target, expected.class_name, wanted)
    _refuse_small_disk(target, plan.outputs)
    stem = "adapter_model" if adapters is not None and lora == "adapter" else "model"
    written = write_tensors(target, stem, plan.outputs, progress)
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


def _model_plan(tensors: Mapping[str, SourceTensor], expected: Expected, adapters: Lora | None, dtype: str) -> _Plan:
    tied = sorted(key for key in expected.tied if key in tensors)
    for key in tied:
        _refuse_untied(key, tensors[key], expected.tied[key], tensors[expected.tied[key]])
    plan = _Plan([], tied)
    for key, source in tensors.items():
        if key in tied:
            continue
        to = dtype if source.dtype in FLOATS else source.dtype
        name = expected.saved_names[key]
        if adapters is not None and key in adapters.pairs:
            plan.outputs.append(_folded(name, key, source, adapters, to, plan.folds))
        elif key in expected.swapped and not expected.is_saved_layout(key, source.shape):
            plan.outputs.append(_turned(name, key, source, to))
        else:
            plan.outputs.append(_plain(name, key, source, to))
    return plan


def _plain(name: str, key: str, source: SourceTensor, dtype: str) -> Output:
    def chunks() -> Iterator[Any]:
        if is_streamable(source):
            yield from stream_bytes(key, source, dtype)
        else:
            yield to_bytes(key, whole(source), dtype)

    return Output(name, dtype, source.shape, chunks)


def _turned(name: str, key: str, source: SourceTensor, dtype: str) -> Output:
    experts, rows, columns = source.shape

    def chunks() -> Iterator[Any]:
        for expert in whole(source):
            yield to_bytes(key, expert.T, dtype)

    return Output(name, dtype, (experts, columns, rows), chunks)


def _folded(name: str, key: str, source: SourceTensor, adapters: Lora, dtype: str, folds: _Folds) -> Output:
    def chunks() -> Iterator[Any]:
        weight, largest = adapters.fold(key, source)
        folds.changed += largest > 0
        folds.largest = max(folds.largest, largest)
        yield to_bytes(key, weight, dtype)

    return Output(name, dtype, source.shape, chunks)


def _adapter_plan(adapters: Lora, dtype: str) -> _Plan:
    """Under peft's names: base_model.model.<module>.lora_A.weight."""
    plan = _Plan([], [])
    for key, pair in adapters.pairs.items():
        module = key.removesuffix(".weight")
        for side, source in (("A", pair.a), ("B", pair.b)):
            name = f"base_model.model.{module}.lora_{side}.weight"
            plan.outputs.append(_plain(name, name, source, dtype))
    return plan


def _refuse_untied(key: str, ours: SourceTensor, other_key: str, other: SourceTensor) -> None:
    same = ours.shape == other.shape and len(ours.pieces) == len(other.pieces)
    if not same or not all(a.same_bytes(b) for a, b in zip(ours.pieces, other.pieces, strict=True)):
        found = "different values: the two were trained apart"
        fix = "set tie_word_embeddings to false in the checkpoint's huggingface/config.json"
        raise ExportError(f"{key} equal to {other_key}, as config.json ties them", found, fix)


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


def _lora_proof(adapters: Lora, mode: LoraMode, folds: _Folds) -> LoraProof:
    return LoraProof(
        mode, adapters.rank, adapters.alpha, adapters.scale, len(adapters.pairs), folds.changed, folds.largest
    )
