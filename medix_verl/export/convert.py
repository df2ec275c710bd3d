"""One tensor from its pieces to the bytes to be written: joined, cast, checked to be finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medix.errors import ExportError
from medix_verl.export.shards import Piece, SourceTensor

FLOATS = ("float32", "bfloat16", "float16", "float64")


def stream_bytes(key: str, source: SourceTensor, dtype: str) -> Iterator[Any]:
    """The tensor's bytes in chunks of a few megabytes, where its pieces only have to be put one after the other.

    Args:
        dtype: of the output; the bytes are passed through unchanged where it is the tensor's own.

    Raises:
        ExportError: a value is NaN or infinite, or becomes infinite in `dtype`.
    """
    for piece in source.pieces:
        for chunk in piece.stream():
            yield to_bytes(key, as_tensor(chunk, source.dtype), dtype)


def is_streamable(source: SourceTensor) -> bool:
    """Whether the pieces lie one after the other in the whole tensor: not cut, or cut along its first dimension."""
    return source.dim in (None, 0) or len(source.pieces) == 1


def whole(source: SourceTensor) -> Any:
    """The tensor in its own dtype, in memory. Any cut."""
    import torch

    parts = [_part(piece) for piece in source.pieces]
    return parts[0] if source.dim is None or len(parts) == 1 else torch.cat(parts, dim=source.dim)


def as_tensor(chunk: bytes | bytearray | memoryview, dtype: str) -> Any:
    """A flat tensor on the chunk's own memory."""
    import torch

    return torch.frombuffer(chunk, dtype=getattr(torch, dtype))


def to_bytes(key: str, tensor: Any, dtype: str) -> Any:
    """A C-contiguous buffer of the tensor's bytes in `dtype`; integers keep theirs."""
    import torch

    if tensor.is_floating_point():
        if not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            kind = "NaN" if torch.isnan(tensor).any() else "infinite"
            found = f"{count} of them {kind} in {key}"
            fix = "training went wrong before this step: export an earlier one"
            raise ExportError("finite weights", found, fix)
        cast = tensor.to(getattr(torch, dtype))
        if cast.dtype != tensor.dtype and not torch.isfinite(cast).all():
            found = f"values in {key} beyond its range (largest {float(tensor.abs().max()):.3g})"
            raise ExportError(f"weights that fit {dtype}", found, "use --dtype bfloat16 or float32")
        tensor = cast
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def _part(piece: Piece) -> Any:
    import torch

    buffer = bytearray(piece.bytes)
    done = 0
    for chunk in piece.stream():
        buffer[done : done + len(chunk)] = chunk
        done += len(chunk)
    local = piece.local
    if not buffer:
        return torch.empty(local.shape, dtype=getattr(torch, local.dtype))
    return as_tensor(buffer, local.dtype).reshape(local.shape)
