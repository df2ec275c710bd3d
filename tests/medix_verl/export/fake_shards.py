"""Shards written without torch: the pickles of torch 2.8 and 2.13, put together by hand."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Named:
    """A class or function of another package."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """`function(*arguments)`, done by the reader."""

    function: Any
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Made:
    """An instance of a class with this state."""

    kind: Named
    state: Any


@dataclass(frozen=True)
class Build:
    """State for whatever `target` is."""

    target: Any
    state: Any


@dataclass(frozen=True)
class Stored:
    """A storage: the persistent id that torch gives it."""

    identity: tuple[Any, ...]


class _Writer(pickle._Pickler):  # type: ignore[name-defined,misc]  # the pickler in Python can be taught new objects
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, Made):
            self.save(obj.kind)
            self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
            self.save(obj.state)
            self.write(pickle.BUILD)
        elif isinstance(obj, Build):
            self.save(obj.target)
            self.save(obj.state)
            self.write(pickle.BUILD)
        elif isinstance(obj, Stored):
            self.save(obj.identity)
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


class FakeShard:
    """Gathers tensors and writes them as `torch.save` would."""

    def __init__(self) -> None:
        self.storages: list[bytes] = []

    def tensor(
        self, values: Sequence[float], shape: Sequence[int], stride: Sequence[int] = (), offset: int = 0
    ) -> Call:
        """A float32 tensor in a storage of its own."""
        return self._tensor("FloatStorage", struct.pack(f"<{len(values)}f", *values), shape, stride, offset)

    def integers(self, values: Sequence[int], shape: Sequence[int]) -> Call:
        """An int32 tensor."""
        return self._tensor("IntStorage", struct.pack(f"<{len(values)}i", *values), shape, (), 0)

    def _tensor(self, kind: str, data: bytes, shape: Sequence[int], stride: Sequence[int], offset: int) -> Call:
        key = str(len(self.storages))
        self.storages.append(data)
        storage = Stored(("storage", Named("torch", kind), key, "cpu", len(data) // 4))
        strides = tuple(stride) or _row_by_row(shape)
        arguments = (storage, offset, tuple(shape), strides, False, Call(Named("collections", "OrderedDict"), ()))
        return Call(Named("torch._utils", "_rebuild_tensor_v2"), arguments)

    def dtensor(self, local: Call, shape: Sequence[int], mesh: Made, placements: Sequence[Made]) -> Call:
        """A DTensor as torch pickles it."""
        kind = Named("torch.distributed.tensor", "DTensor")
        specs = "torch.distributed.tensor._dtensor_spec"
        spec = Made(Named(specs, "DTensorSpec"), {"mesh": mesh, "placements": tuple(placements)})
        layout = Call(Named("torch.serialization", "_get_layout"), ("torch.strided",))
        device = Call(Named("torch", "device"), ("cpu",))
        sizes = (tuple(shape), _row_by_row(shape))
        arguments = (kind, Named("torch", "float32"), *sizes, 0, layout, device, False)
        state = (None, {"_local_tensor": local, "_spec": spec})
        wrapper = Named("torch._utils", "_rebuild_wrapper_subclass")
        return Call(Named("torch._tensor", "_rebuild_from_type_v2"), (wrapper, kind, arguments, state))

    def mesh_2_8(self, shape: Sequence[int], ranks: Sequence[int], coordinate: Sequence[int]) -> Made:
        """As torch 2.5 to 2.8 write a DeviceMesh: a tensor of ranks, and the coordinate of the writer."""
        state = {
            "device_type": "cuda",
            "mesh": self.integers(ranks, shape),
            "mesh_dim_names": ("ddp", "fsdp")[-len(shape) :],
            "_coordinate_on_dim": list(coordinate),
        }
        return Made(Named("torch.distributed.device_mesh", "DeviceMesh"), state)

    def mesh_2_9(self, shape: Sequence[int], ranks: Sequence[int], rank: int) -> Made:
        """As torch since 2.9 may write it: a flat table of ranks, one layout of shape and stride, and the rank."""
        layout = {"shape": tuple(shape), "stride": _row_by_row(shape)}
        state = {
            "_rank_map": self.integers(ranks, (len(ranks),)),
            "_layout": Made(Named("torch.distributed._mesh_layout", "_MeshLayout"), layout),
            "_mesh_dim_names": ("ddp", "fsdp")[-len(shape) :],
            "_rank": rank,
        }
        return Made(Named("torch.distributed.device_mesh", "DeviceMesh"), state)

    def save(self, path: Path, content: Mapping[str, Any] | Any, stem: str | None = None) -> Path:
        """Write the archive; `stem` is the name that it says it was saved under."""
        buffer = io.BytesIO()
        _Writer(buffer, protocol=2).dump(content)
        prefix = path.stem if stem is None else stem
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{prefix}/data.pkl", buffer.getvalue())
            archive.writestr(f"{prefix}/byteorder", "little")
            for key, data in enumerate(self.storages):
                archive.writestr(f"{prefix}/data/{key}", data)
        return path


def cut(dim: int | None) -> Made:
    """The placement Shard(dim), or Replicate() for None."""
    module = "torch.distributed.tensor.placement_types"
    return Made(Named(module, "Replicate"), {}) if dim is None else Made(Named(module, "Shard"), {"dim": dim})


def _row_by_row(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
