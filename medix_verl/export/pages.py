"""Gives the pages of mapped weight files back as soon as they have been computed with.

Weights of a safetensors file or of a shard are mapped, not copied. But a page that was touched counts as this
process's memory until it is given back, and a forward pass touches all. The file holds them: a page that is touched
again is read again.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

Span = tuple[int, int]
WEIGHT_FILES: Final = (".safetensors", ".pt")


def mapped_spans() -> list[Span]:
    """(first address, address after the last) of every mapped weight file; none where the system has no /proc."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    fields = (line.split(maxsplit=5) for line in lines)
    ranges = (parts[0].split("-") for parts in fields if parts[-1].endswith(WEIGHT_FILES))
    return [(int(first, 16), int(end, 16)) for first, end in ranges]


def forget(tensors: Iterable[Any], spans: Sequence[Span]) -> int:
    """Give back the pages of those tensors that lie wholly inside a span, and return their bytes.

    Never of another: the system would put zeros in the place of weights that no file holds. Of the tensors that are
    mapped, none may have been changed in place.
    """
    libc, given = ctypes.CDLL(None), 0
    for tensor in tensors:
        first, size = tensor.data_ptr(), tensor.nbytes
        if size and any(begin <= first and first + size <= end for begin, end in spans):
            page = first - first % mmap.PAGESIZE
            libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(first + size - page), mmap.MADV_DONTNEED)
            given += size
    return given


def forget_after_use(model: Any) -> None:
    """From now on each module that owns weights gives their pages back at the end of its forward pass."""
    spans = mapped_spans()
    for module in model.modules():
        own = module.parameters(recurse=False)
        # The tensors themselves: FSDP2 puts others in their place while the module computes. Held, they stay mapped.
        held = [p.detach().to_local() if hasattr(p, "to_local") else p.detach() for p in own]
        if held:
            module.register_forward_hook(partial(_forget_after, held, spans))


def _forget_after(tensors: Sequence[Any], spans: Sequence[Span], *_: Any) -> None:
    forget(tensors, spans)
