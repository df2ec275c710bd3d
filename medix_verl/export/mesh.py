"""How a DTensor was cut: the device mesh and the placements that a shard's pickle describes."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from medix.errors import ExportError
from medix_verl.export.archive import Archive
from medix_verl.export.unpickle import ITEM_BYTES, Inert, Local, RawSharded, Replicate, Shard

_INTEGER_CODES = {"int64": "q", "int32": "i"}


@dataclass(frozen=True)
class Mesh:
    """The ranks as a grid.

    Attributes:
        shape: such as (2, 4): two replicas, each cut in four.
        names: such as ("ddp", "fsdp"); empty where not named.
        ranks: all ranks, row by row.
        rank: the rank that wrote this shard; None where this torch release does not write it.
        coordinate: the place of that rank in the grid; None likewise.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...]
    ranks: tuple[int, ...]
    rank: int | None
    coordinate: tuple[int, ...] | None

    def place(self, rank: int) -> tuple[int, ...]:
        """The place of a rank in the grid."""
        index, place = self.ranks.index(rank), []
        for size in reversed(self.shape):
            index, remainder = divmod(index, size)
            place.append(remainder)
        return tuple(reversed(place))

    def describe(self) -> str:
        """Such as `ddp=2 fsdp=4`."""
        names = self.names or tuple(f"dim{index}" for index in range(len(self.shape)))
        return " ".join(f"{name}={size}" for name, size in zip(names, self.shape, strict=True))


def read_mesh(raw: RawSharded, archive: Archive, world_size: int) -> Mesh:
    """The mesh of a DTensor, as torch 2.6 to 2.13 write it.

    Raises:
        ExportError: it is in no known form, damaged, or larger than `world_size`, the number of shards.
    """
    try:
        return _mesh(raw, archive, world_size)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise _unknown(archive, f"a damaged device mesh ({type(error).__name__}: {error})") from error


def _mesh(raw: RawSharded, archive: Archive, world_size: int) -> Mesh:
    fields = raw.spec["mesh"].fields if isinstance(raw.spec.get("mesh"), Inert) else {}
    if isinstance(fields.get("mesh"), Local):
        shape = fields["mesh"].shape
        _refuse_larger(shape, archive, world_size)
        ranks = _integers(fields["mesh"], archive)
    elif isinstance(fields.get("_rank_map"), Local) and isinstance(fields.get("_layout"), Inert):
        axes = _axes(fields["_layout"])
        shape = tuple(math.prod(size) for size, _ in axes)
        _refuse_larger(shape, archive, world_size)
        _refuse_larger(fields["_rank_map"].shape, archive, world_size)
        table = _integers(fields["_rank_map"], archive)
        steps = [pair for size, stride in axes for pair in zip(size, stride, strict=True)]
        ranks = tuple(table[index] for index in _offsets(steps) if index < len(table))
    else:
        raise _unknown(archive, "a device mesh in a form that this version does not know")
    if len(ranks) != math.prod(shape):
        raise _unknown(archive, "a device mesh whose ranks do not fit its shape")
    names = fields.get("mesh_dim_names", fields.get("_mesh_dim_names")) or ()
    coordinate = fields.get("_coordinate_on_dim")
    rank = fields.get("_rank")
    return Mesh(
        shape=shape,
        names=tuple(map(str, names)),
        ranks=ranks,
        rank=rank if isinstance(rank, int) else None,
        coordinate=tuple(coordinate) if isinstance(coordinate, list | tuple) else None,
    )


def _refuse_larger(shape: tuple[int, ...], archive: Archive, world_size: int) -> None:
    if min(shape, default=1) < 1 or math.prod(shape) > world_size:
        raise _unknown(archive, f"a device mesh of {shape} ranks for {world_size} shards")


def read_placements(raw: RawSharded, archive: Archive) -> tuple[int | None, ...]:
    """For each dimension of the mesh: the dimension of the tensor that is cut along it, None for a whole copy."""
    placements: list[int | None] = []
    for placement in raw.spec.get("placements", ()):
        if type(placement) is Shard:
            dim = placement.fields.get("dim", placement.values[0] if placement.values else None)
            if not isinstance(dim, int) or not 0 <= dim < len(raw.shape):
                raise _unknown(archive, f"a tensor of {len(raw.shape)} dimensions cut along {dim!r}")
            placements.append(dim)
        elif type(placement) is Replicate:
            placements.append(None)
        else:
            raise _unknown(archive, f"a placement of kind {type(placement).__name__}")
    if len([dim for dim in placements if dim is not None]) > 1:
        raise _unknown(archive, "a tensor cut along two dimensions of the mesh (tensor parallelism)")
    return tuple(placements)


def _axes(layout: Inert) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(sizes, strides) of each axis: both are empty for an axis of one rank in torch 2.13."""
    flat = layout.fields.get("axes")
    if flat is not None:
        return [(_numbers(axis.fields["shape"]), _numbers(axis.fields["stride"])) for axis in flat]
    pairs = zip(_each(layout.fields["shape"]), _each(layout.fields["stride"]), strict=True)
    return [(_numbers(size), _numbers(stride)) for size, stride in pairs]


def _each(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(item) for item in _each(value))


def _offsets(steps: Iterable[tuple[int, int]]) -> list[int]:
    """Offsets of a grid's points, row by row, from (size, stride) of each dimension."""
    offsets = [0]
    for size, step in steps:
        offsets = [offset + index * step for offset in offsets for index in range(size)]
    return offsets


def _integers(local: Local, archive: Archive) -> tuple[int, ...]:
    code = _INTEGER_CODES.get(local.dtype)
    if code is None:
        raise _unknown(archive, f"a device mesh of {local.dtype}")
    item = ITEM_BYTES[local.dtype]
    raw = archive.contents(f"data/{local.storage.key}")
    values = struct.unpack(f"<{len(raw) // item}{code}", raw)
    return tuple(values[local.offset + index] for index in _offsets(zip(local.shape, local.stride, strict=True)))


def _unknown(archive: Archive, found: str) -> ExportError:
    return ExportError(
        "tensors cut by FSDP1, FSDP2 or HSDP", f"{found} in {archive.path}", "export with the veRL that wrote the shard"
    )
