"""Which tensors an export writes, under which names, and how each one's bytes come about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medix.errors import ExportError
from medix_verl.export.convert import FLOATS, is_streamable, stream_bytes, to_bytes, whole
from medix_verl.export.expected import Expected
from medix_verl.export.lora import Lora
from medix_verl.export.safetensors_file import Output
from medix_verl.export.shards import SourceTensor


@dataclass
class Folds:
    """What folding changed, noted while the weights are written."""

    changed: int = 0
    largest: float = 0.0


@dataclass(frozen=True)
class Plan:
    """`tied`: keys left out. `folds` is filled while the outputs' chunks are taken."""

    outputs: list[Output]
    tied: list[str]
    folds: Folds = field(default_factory=Folds)


def plan_model(tensors: Mapping[str, SourceTensor], expected: Expected, adapters: Lora | None, dtype: str) -> Plan:
    """The whole model, adapters folded in, under the names of a saved folder.

    Raises:
        ExportError: two keys that the class ties hold different values.
    """
    tied = sorted(key for key in expected.tied if key in tensors)
    for key in tied:
        _refuse_untied(key, tensors[key], expected.tied[key], tensors[expected.tied[key]])
    plan = Plan([], tied)
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


def _folded(name: str, key: str, source: SourceTensor, adapters: Lora, dtype: str, folds: Folds) -> Output:
    def chunks() -> Iterator[Any]:
        weight, largest = adapters.fold(key, source)
        folds.changed += largest > 0
        folds.largest = max(folds.largest, largest)
        yield to_bytes(key, weight, dtype)

    return Output(name, dtype, source.shape, chunks)


def plan_adapter(adapters: Lora, dtype: str) -> Plan:
    """The adapters alone, under peft's names: base_model.model.<module>.lora_A.weight."""
    plan = Plan([], [])
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
