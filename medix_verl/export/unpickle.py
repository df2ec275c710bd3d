"""The pickle inside a shard, read into plain descriptions of its tensors.

Nothing of the pickle's choosing is ever imported or called: each name that a veRL shard may use stands in a table here,
beside an inert stand-in for it, and any other name is refused. So neither torch nor a process group is needed, and the
DTensors of several torch releases read the same.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medix.errors import ExportError
from medix_verl.export.archive import Archive

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}
_STORAGES = {
    "FloatStorage": "float32",
    "BFloat16Storage": "bfloat16",
    "HalfStorage": "float16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class _Closed:
    """Takes no state: a pickle's BUILD would otherwise change a stand-in for every file that is read after it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"state for a {type(self).__name__}")


@dataclass(frozen=True)
class Storage(_Closed):
    """A record of the archive: `data/<key>`, `numel` items of `dtype`."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class Local(_Closed):
    """A tensor as one rank holds it: a view of a storage; offset and stride in items."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Such as `bfloat16`."""
        return self.storage.dtype


@dataclass(frozen=True)
class RawSharded(_Closed):
    """A DTensor as pickled. `spec` is the state of its DTensorSpec, to be read by `medix_verl.export.mesh`."""

    local: Local
    shape: tuple[int, ...]
    spec: dict[str, Any]


class Inert:
    """Stands for any class whose instances only carry fields (DeviceMesh, Shard, ...): keeps them, does nothing."""

    fields: dict[str, Any]
    values: tuple[Any, ...]

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        # Unpickling makes objects without calling __init__.
        self = super().__new__(cls)
        self.fields, self.values = {}, ()
        return self

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.fields.update(part)
            else:
                self.values += (part,)


class Shard(Inert):
    """Placement: cut along `fields["dim"]`."""


class Replicate(Inert):
    """Placement: whole on every rank."""


class DTensorClass(Inert):
    """Only ever named, as an argument; never made."""


@dataclass(frozen=True)
class StorageClass(_Closed):
    """`torch.FloatStorage` and its like: the persistent id of a tensor's bytes names one."""

    dtype: str


class Function(_Closed):
    """Stands for a function; a decorator."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


@Function
def _local(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Local:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return Local(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


@Function
def _parameter(data: Any, *_: Any) -> Any:
    return data


@Function
def _wrapper(*_: Any) -> Any:
    raise pickle.UnpicklingError("a wrapper tensor outside of _rebuild_from_type_v2")


@Function
def _from_type(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A DTensor's rebuild: arguments are (class, dtype, size, stride, ...), state holds local tensor and spec."""
    if rebuild is not _wrapper:
        return rebuild(*arguments) if rebuild in (_local, _parameter) else None
    if kind is not DTensorClass:
        raise pickle.UnpicklingError("a tensor subclass that is no DTensor")
    fields = state[1] if isinstance(state, tuple) else state
    local, spec = fields["_local_tensor"], fields["_spec"]
    if not isinstance(local, Local) or not isinstance(spec, Inert):
        raise pickle.UnpicklingError("a DTensor without a local tensor")
    return RawSharded(local, tuple(map(int, arguments[2])), spec.fields)


@Function
def _sizes(values: Any = ()) -> tuple[int, ...]:
    return tuple(values)


@Function
def _nothing(*_: Any) -> None:
    """Devices and memory layouts: they do not matter to a file."""


_PLACEMENTS = ("torch.distributed.tensor.placement_types", "torch.distributed._tensor.placement_types")
_SPECS = ("torch.distributed.tensor._dtensor_spec", "torch.distributed._tensor.placement_types")
_DTENSORS = (
    "torch.distributed.tensor",
    "torch.distributed.tensor._api",
    "torch.distributed._tensor",
    "torch.distributed._tensor.api",
)
_MESHES = (
    ("torch.distributed.device_mesh", "DeviceMesh"),
    ("torch.distributed._mesh_layout", "_MeshLayout"),
    ("torch.distributed._mesh_layout", "_FlatLayout"),
)

KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _sizes,
    ("torch", "device"): _nothing,
    ("torch.serialization", "_get_layout"): _nothing,
    ("torch._utils", "_rebuild_tensor_v2"): _local,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_wrapper_subclass"): _wrapper,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    **{("torch", name): StorageClass(dtype) for name, dtype in _STORAGES.items()},
    **{("torch", dtype): dtype for dtype in ITEM_BYTES},
    **{(module, "DTensor"): DTensorClass for module in _DTENSORS},
    **{(module, "Shard"): Shard for module in _PLACEMENTS},
    **{(module, "Replicate"): Replicate for module in _PLACEMENTS},
    **{(module, name): Inert for module in _SPECS for name in ("DTensorSpec", "TensorMeta", "ShardOrderEntry")},
    **{name: Inert for name in _MESHES},
}


class _Reader(pickle.Unpickler):
    """`unknown` answers for a name outside of the table: it raises, or gives an inert stand-in."""

    def __init__(self, data: bytes, unknown: Callable[[str, str], Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._unknown = unknown

    def find_class(self, module: str, name: str) -> Any:
        found = KNOWN.get((module, name))
        return self._unknown(module, name) if found is None else found

    def persistent_load(self, identity: Any) -> Storage:
        kind, storage, key, _, numel = identity
        if kind != "storage" or not isinstance(storage, StorageClass):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        return Storage(str(key), storage.dtype, int(numel))


def read_tensors(archive: Archive) -> dict[str, Local | RawSharded]:
    """The tensors of a model shard by key.

    Raises:
        ExportError: the pickle names anything that a veRL shard does not hold, or is no dictionary of tensors.
    """

    def refuse(module: str, name: str) -> Any:
        raise ExportError(
            "a pickle of tensors and their sharding only",
            f"a foreign pickle that asks for `{module}.{name}` in {archive.path}",
            "do not load this file with anything; get the checkpoint again from the run that made it",
        )

    loaded = _load(archive, refuse)
    if not isinstance(loaded, dict) or not loaded:
        raise _not_tensors(archive, type(loaded).__name__)
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Local | RawSharded):
            raise _not_tensors(archive, f"{type(value).__name__} under {key!r}")
    return dict(loaded)


def read_facts(archive: Archive) -> Any:
    """An optimizer's or extra-state's pickle: its numbers and tensors, with every class turned into an `Inert`."""
    return _load(archive, lambda _module, _name: Inert)


def _load(archive: Archive, unknown: Callable[[str, str], Any]) -> Any:
    try:
        return _Reader(archive.contents("data.pkl"), unknown).load()
    except ExportError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged or hostile pickle may fail in any way
        raise _not_tensors(archive, f"{type(error).__name__}: {error}") from None


def _not_tensors(archive: Archive, found: str) -> ExportError:
    fix = "get the checkpoint again from the run that made it"
    return ExportError("a state dictionary of tensors", f"{found} in {archive.path}", fix)
