"""The shards of a checkpoint: loaded by torch without running code, joined tensor by tensor along their placements."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix_verl.export.checkpoint import Checkpoint
from medix_verl.export.manifest import contents

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`, called often; a total of 0 means that it is not known."""
_MIXED: Final = "Restore the shards of one save: these are of different models or steps."
_NO_NAME: Final = "archive"
"""The name inside a shard whose writer was given a stream and so knew no file name."""


def load_shard(path: Path) -> dict[str, Any]:
    """Map a shard into memory; its pages are read when a tensor is used, and given back with the last tensor."""
    import torch
    import torch.distributed.tensor

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the device mesh has no process group; none is needed.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # A damaged pickle, or one of another release, may fail in any way.
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked and not asked[1].startswith("torch."):
            found = f"{path} is a foreign pickle: it asks for `{asked[1]}`, and a shard holds tensors only."
            raise ExportError(
                found, "Load this file with nothing; get the checkpoint from where it was trained."
            ) from None
        raise _other_release(path, error) from error
    values = state.items() if isinstance(state, dict) else ()
    if not values or any(not isinstance(value, torch.Tensor) for _, value in values):
        raise ExportError(f"{path} holds something other than tensors by name.", "Restore the shard.")
    return dict(values)


def _other_release(path: Path, error: Exception) -> ExportError:
    import torch

    reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    merger = f"python -m verl.model_merger merge --backend fsdp --local_dir {path.parent} --target_dir OUT"
    found = f"torch {torch.__version__} can not read {path} ({reason}): another release of torch may have saved it."
    return ExportError(found, f"Export with the release that trained, or merge a file you trust by veRL: `{merger}`.")


class Shards:
    """All shards of a checkpoint as one set of tensors.

    Attributes:
        whole: key -> the whole tensor's shape and dtype, as a tensor on the meta device.
    """

    def __init__(self, checkpoint: Checkpoint, progress: Progress) -> None:
        """Check every shard's bytes and rank, and that all have the same keys."""
        import torch
        from torch.distributed.tensor import DTensor

        self._paths = checkpoint.shards
        for path in self._paths:
            progress(f"checking {path.name}", 0, 0)
            name = contents(path.parent, path.name)[0].filename.partition("/")[0]
            if name not in (path.stem, _NO_NAME):
                raise _swapped(path, f"the one that was saved as {name}.pt")
            # torch maps a file and looks at no checksum; zipfile compares every one, a megabyte at a time.
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ExportError(f"{path} has damaged bytes in {damaged}.", "Copy it again, or take another step.")
        states = self.load()
        for path, state in zip(self._paths, states, strict=True):
            cut = next((value for value in state.values() if isinstance(value, DTensor)), None)
            saved_by = getattr(cut._spec.mesh, "_rank", None) if cut is not None else None
            if saved_by not in (None, self._paths.index(path)):
                raise _swapped(path, f"the one that rank {saved_by} saved")
            if other := sorted(state.keys() ^ states[0].keys()):
                verb = "has" if other[0] in state else "lacks"
                raise ExportError(f"{path.name} {verb} {other[0]} ({len(other)} keys differ).", _MIXED)
        self.whole = {k: torch.empty(v.shape, dtype=v.dtype, device="meta") for k, v in states[0].items()}

    def load(self) -> list[dict[str, Any]]:
        """Map all shards. Hold the result no longer than needed: the pages that were read count as memory."""
        return [load_shard(path) for path in self._paths]

    def _grid(self, path: Path, tensor: Any) -> Any:
        """Return the device mesh of a tensor: a tensor of ranks, one dimension for each placement."""
        try:
            grid = tensor._spec.mesh.mesh
            ranks = sorted(grid.flatten().tolist())
        except Exception as error:  # The mesh is an object of torch's own; other releases pickle other fields.
            raise _other_release(path, error) from error
        if ranks != list(range(len(self._paths))):
            raise ExportError(f"{path} has a device mesh of {len(ranks)} ranks, not of {len(self._paths)}.", _MIXED)
        return grid

    def join(self, key: str, states: list[dict[str, Any]]) -> Any:
        """Return one whole tensor, joined from its parts in all shards.

        Args:
            states: what `load` returned.
        """
        import torch
        from torch.distributed.tensor import DTensor, Replicate, Shard

        parts = [state[key] for state in states]
        if len({(type(p), p.shape, p.dtype, getattr(p, "placements", None)) for p in parts}) > 1:
            raise ExportError(f"{key} has another shape, dtype or cut in each shard.", _MIXED)
        first = parts[0]
        if not isinstance(first, DTensor):
            return _one_of(key, parts)
        cuts = [(axis, p.dim) for axis, p in enumerate(first.placements) if type(p) is Shard]
        if len(cuts) > 1 or any(type(placement) not in (Shard, Replicate) for placement in first.placements):
            raise ExportError(f"{key} is cut as {first.placements}, which FSDP does not do.", _MIXED)
        grid = self._grid(self._paths[0], first)
        axis, dim = cuts[0] if cuts else (0, None)
        # One row a part, in the order in which they are joined; the ranks of a row hold replicas of it.
        rows = grid.reshape(1, -1) if dim is None else grid.movedim(axis, 0).reshape(grid.shape[axis], -1)
        pieces = [_one_of(key, [parts[rank]._local_tensor for rank in row]) for row in rows.tolist()]
        joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
        if joined.shape != first.shape:
            raise ExportError(f"The parts of {key} make {tuple(joined.shape)}, not {tuple(first.shape)}.", _MIXED)
        return joined


def _swapped(path: Path, found: str) -> ExportError:
    fix = "Give the shards their own names again: swapped ranks would scramble every tensor."
    return ExportError(f"{path} is not the shard of the rank in its name but {found}.", fix)


def _one_of(key: str, copies: list[Any]) -> Any:
    import torch

    bits = [copy.contiguous().reshape(-1).view(torch.uint8) for copy in copies]
    if not all(torch.equal(bits[0], other) for other in bits[1:]):
        raise ExportError(f"The replicas of {key} hold different values.", _MIXED)
    return copies[0]
