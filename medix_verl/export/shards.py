"""All shards of a checkpoint as one set of tensors: which piece of which file makes which part of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medix.errors import ExportError
from medix_verl.export.archive import Archive
from medix_verl.export.contract import Checkpoint
from medix_verl.export.mesh import Mesh, read_mesh, read_placements
from medix_verl.export.ranks import refuse_other_rank
from medix_verl.export.unpickle import ITEM_BYTES, Local, RawSharded, read_tensors

_MIXED = "restore the shards of one save: these are of different models or steps"


@dataclass(frozen=True)
class Piece:
    """One rank's part of a tensor."""

    archive: Archive
    local: Local

    @property
    def bytes(self) -> int:
        """Size of the part, without the padding that FSDP may have left in its storage."""
        return math.prod(self.local.shape) * ITEM_BYTES[self.local.dtype]

    def stream(self) -> Iterator[memoryview]:
        """The part's bytes, row by row, in chunks that are valid until the next one."""
        start = self.local.offset * ITEM_BYTES[self.local.dtype]
        return self.archive.stream(f"data/{self.local.storage.key}", start, self.bytes)

    def same_bytes(self, other: Piece) -> bool:
        """Whether a replica holds the same values; equal CRC32s of the (checked) records are enough."""
        ours, theirs = (p.archive.records[f"data/{p.local.storage.key}"] for p in (self, other))
        if (ours.size, ours.crc, self.local.offset) == (theirs.size, theirs.crc, other.local.offset):
            return True
        return all(bytes(a) == bytes(b) for a, b in zip(self.stream(), other.stream(), strict=True))


@dataclass(frozen=True)
class SourceTensor:
    """A whole tensor: its pieces in order, to be joined along `dim` (None: one piece is all of it)."""

    shape: tuple[int, ...]
    dtype: str
    dim: int | None
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class ShardSet:
    """What the shards hold together.

    Attributes:
        mesh: the grid of ranks; None where no tensor is cut.
        replicas: how many copies of each piece there are (HSDP), all found equal.
        rank_witnesses: what proves the rank of a shard, as far as every shard has it.
    """

    archives: Sequence[Archive]
    tensors: Mapping[str, SourceTensor]
    mesh: Mesh | None
    replicas: int
    rank_witnesses: Sequence[str]


def open_shards(checkpoint: Checkpoint) -> ShardSet:
    """Read the table of contents of every shard and fit the pieces together.

    Raises:
        ExportError: a shard is missing, truncated, foreign or of another rank, or the shards do not fit each other.
    """
    archives = [Archive(path) for path in _paths(checkpoint)]
    world = checkpoint.world_size
    entries: list[Mapping[str, Local | RawSharded]] = []
    meshes: list[Mesh | None] = []
    witnesses: list[list[str]] = []
    for rank, archive in enumerate(archives):
        tensors = read_tensors(archive)
        first = next((value for value in tensors.values() if isinstance(value, RawSharded)), None)
        mesh = read_mesh(first, archive, world) if first is not None else None
        witnesses.append(refuse_other_rank(archive, rank, world, mesh))
        entries.append(tensors)
        meshes.append(mesh)
    _refuse_other_keys(archives, entries)
    mesh = _one_mesh(archives, meshes)
    tensors_of = [[held[key] for held in entries] for key in entries[0]]
    joined = {key: _join(key, archives, held, mesh) for key, held in zip(entries[0], tensors_of, strict=True)}
    cut = next((value for value in entries[0].values() if isinstance(value, RawSharded)), None)
    placements = read_placements(cut, archives[0]) if cut is not None else ()
    pairs = zip(mesh.shape, placements, strict=True) if mesh is not None else ()
    replicas = math.prod(size for size, dim in pairs if dim is None)
    shared = [name for name in witnesses[0] if all(name in names for names in witnesses)]
    return ShardSet(archives, joined, mesh, replicas, shared)


def _paths(checkpoint: Checkpoint) -> list[Path]:
    world = checkpoint.world_size
    paths = [checkpoint.actor / f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ExportError(
            f"{world} shards in {checkpoint.actor}",
            f"{len(missing)} missing: {', '.join(missing[:3])}",
            "copy the missing shards from the nodes that wrote them; no part of a model is made up",
        )
    return paths


def _refuse_other_keys(archives: Sequence[Archive], entries: Sequence[Mapping[str, object]]) -> None:
    for archive, held in zip(archives, entries, strict=True):
        other = sorted(held.keys() ^ entries[0].keys())
        if other:
            has = "has" if other[0] in held else "lacks"
            found = f"{archive.path.name} {has} {other[0]} ({len(other)} keys differ)"
            raise ExportError("the same keys in every shard", found, _MIXED)


def _one_mesh(archives: Sequence[Archive], meshes: Sequence[Mesh | None]) -> Mesh | None:
    plain = [mesh and replace(mesh, rank=None, coordinate=None) for mesh in meshes]
    for archive, mesh in zip(archives, plain, strict=True):
        if mesh != plain[0] or (mesh is not None and sorted(mesh.ranks) != list(range(len(archives)))):
            found = (
                f"{mesh.describe() if mesh else 'no mesh'} over ranks {mesh.ranks if mesh else ()} in {archive.path}"
            )
            raise ExportError(f"one device mesh over {len(archives)} ranks", found, _MIXED)
    return plain[0]


def _join(key: str, archives: Sequence[Archive], held: Sequence[Local | RawSharded], mesh: Mesh | None) -> SourceTensor:
    locals_ = [value.local if isinstance(value, RawSharded) else value for value in held]
    pieces = [Piece(archive, local) for archive, local in zip(archives, locals_, strict=True)]
    shapes = {value.shape for value in held}
    placements = {
        read_placements(v, a) if isinstance(v, RawSharded) else () for v, a in zip(held, archives, strict=True)
    }
    dtypes = {local.dtype for local in locals_}
    if len(shapes) > 1 or len(placements) > 1 or len(dtypes) > 1:
        found = f"{key} with shapes {sorted(shapes)}, dtypes {sorted(dtypes)}"
        raise ExportError(f"one shape, dtype and placement of {key} over all ranks", found, _MIXED)
    for piece in pieces:
        _refuse_bad_view(key, piece)
    shape, placement, dtype = shapes.pop(), placements.pop(), dtypes.pop()
    axis, dim = next(((index, dim) for index, dim in enumerate(placement) if dim is not None), (0, None))
    if dim is None or mesh is None:
        _refuse_unequal(key, pieces)
        return SourceTensor(shape, dtype, None, (pieces[0],))
    parts = mesh.shape[axis]
    copies: list[list[Piece]] = [[] for _ in range(parts)]
    for rank, piece in enumerate(pieces):
        copies[mesh.place(rank)[axis]].append(piece)
    for index, same in enumerate(copies):
        _refuse_other_cut(key, same, chunk_shape(shape, dim, parts, index))
        _refuse_unequal(key, same)
    return SourceTensor(shape, dtype, dim, tuple(same[0] for same in copies))


def chunk_shape(shape: tuple[int, ...], dim: int, parts: int, index: int) -> tuple[int, ...]:
    """Shape of part `index` where `shape` is cut as `torch.chunk` does: equal parts, the last ones smaller or empty."""
    size = math.ceil(shape[dim] / parts)
    return (*shape[:dim], max(0, min(size, shape[dim] - index * size)), *shape[dim + 1 :])


def _refuse_other_cut(key: str, pieces: Sequence[Piece], wanted: tuple[int, ...]) -> None:
    for piece in pieces:
        if piece.local.shape != wanted:
            found = f"{piece.local.shape} in {piece.archive.path.name}"
            raise ExportError(f"{wanted} as this rank's part of {key}", found, _MIXED)


def _refuse_bad_view(key: str, piece: Piece) -> None:
    local, step = piece.local, 1
    record = piece.archive.records.get(f"data/{local.storage.key}")
    for size, stride in zip(reversed(local.shape), reversed(local.stride), strict=True):
        if size > 1 and stride != step and piece.bytes:
            found = f"strides {local.stride} of {key} in {piece.archive.path.name}"
            raise ExportError("tensors laid out row by row, as FSDP keeps them", found, "save the checkpoint again")
        step *= size
    item = ITEM_BYTES[local.dtype]
    if record is None or local.offset < 0 or local.offset * item + piece.bytes > record.size:
        found = f"fewer than {key} needs in {piece.archive.path.name}"
        raise ExportError(f"{piece.bytes} bytes in record {local.storage.key}", found, "save the checkpoint again")


def _refuse_unequal(key: str, copies: Sequence[Piece]) -> None:
    for other in copies[1:]:
        if copies[0].local.shape != other.local.shape or not copies[0].same_bytes(other):
            names = f"{copies[0].archive.path.name} and {other.archive.path.name}"
            raise ExportError(f"equal replicas of {key}", f"different values in {names}", _MIXED)
