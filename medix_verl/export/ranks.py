"""Whether a shard is the one of the rank that its file name says."""

from __future__ import annotations

from medix.errors import ExportError
from medix_verl.export.archive import Archive
from medix_verl.export.mesh import Mesh

_NO_NAME = "archive"
"""The name inside an archive whose writer was given a stream, or a path outside of ASCII."""


def refuse_other_rank(archive: Archive, rank: int, world_size: int, mesh: Mesh | None) -> list[str]:
    """The witnesses for a shard's rank: the name under which torch saved it, and the rank in its device mesh.

    Returns:
        Those that this file has and that agree; none where the writer of the file left none.

    Raises:
        ExportError: either names another rank: the files were swapped or renamed.
    """
    name = f"model_world_size_{world_size}_rank_{rank}"
    if archive.stem not in (name, _NO_NAME):
        raise _other(archive, rank, f"the one saved as {archive.stem}.pt")
    witnesses = [] if archive.stem == _NO_NAME else ["the name inside the archive"]
    if mesh is None or rank not in mesh.ranks:
        return witnesses
    if mesh.rank is not None and mesh.rank != rank:
        raise _other(archive, rank, f"the one that rank {mesh.rank} saved")
    if mesh.coordinate is not None and mesh.coordinate != mesh.place(rank):
        raise _other(archive, rank, f"the one from place {mesh.coordinate} of the device mesh {mesh.describe()}")
    if mesh.rank is not None or mesh.coordinate is not None:
        witnesses.append("the rank in the device mesh")
    return witnesses


def _other(archive: Archive, rank: int, found: str) -> ExportError:
    fix = "give the shards their own names again: swapped ranks would scramble every tensor"
    return ExportError(f"the shard of rank {rank} in {archive.path.name}", found, fix)
