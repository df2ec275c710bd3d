"""Safetensors files written from a stream: no more than one chunk of one tensor is in memory, then read back."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix.errors import ExportError
from medix_verl.export.contract import Progress
from medix_verl.export.unpickle import ITEM_BYTES

FILE_BYTES = 2 << 30
"""Weights a file: small enough that a broken upload repeats little."""

_CHUNK_BYTES = 8 << 20
NAMES = {
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
    "float64": "F64",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}


@dataclass(frozen=True)
class Output:
    """A tensor to be written; `chunks()` gives its bytes, row by row."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[Any]]

    @property
    def bytes(self) -> int:
        """Size of the tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Written:
    """What stands on the disk: files by name, and a sha256 over every tensor as read back, in order of name."""

    files: tuple[str, ...]
    digest: str


def write_tensors(target: Path, stem: str, outputs: Sequence[Output], progress: Progress) -> Written:
    """Write tensors as `<stem>.safetensors`, or as several files and their index, and read them back.

    Raises:
        ExportError: the disk is too small, or what is read back is not what was written.
    """
    outputs = sorted(outputs, key=lambda output: output.name)
    total = sum(output.bytes for output in outputs)
    groups = _groups(outputs)
    count = len(groups)
    names = [f"{stem}-{i:05d}-of-{count:05d}.safetensors" if count > 1 else f"{stem}.safetensors" for i in _ones(count)]
    crcs: dict[str, int] = {}
    done = 0
    for name, group in zip(names, groups, strict=True):
        for output, size in _write_file(target / name, group, crcs):
            done += size
            progress(f"writing {output.name}", done, total)
    if count > 1:
        index = {
            "metadata": {"total_size": total, "total_parameters": sum(math.prod(output.shape) for output in outputs)},
            "weight_map": {output.name: name for name, group in zip(names, groups, strict=True) for output in group},
        }
        (target / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return Written(tuple(names), _read_back(target, names, groups, crcs, progress))


def _ones(count: int) -> range:
    return range(1, count + 1)


def _groups(outputs: Sequence[Output]) -> list[list[Output]]:
    groups: list[list[Output]] = [[]]
    size = 0
    for output in outputs:
        if groups[-1] and size + output.bytes > FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(output)
        size += output.bytes
    return groups


def _header(outputs: Sequence[Output]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for output in outputs:
        entries[output.name] = {
            "dtype": NAMES[output.dtype],
            "shape": list(output.shape),
            "data_offsets": [offset, offset + output.bytes],
        }
        offset += output.bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_file(path: Path, outputs: Sequence[Output], crcs: dict[str, int]) -> Iterator[tuple[Output, int]]:
    with path.open("wb") as file:
        file.write(_header(outputs))
        for output in outputs:
            crc = size = 0
            for chunk in output.chunks():
                file.write(chunk)
                crc = zlib.crc32(chunk, crc)
                size += len(chunk)
                yield output, len(chunk)
            if size != output.bytes:
                raise ExportError(f"{output.bytes} bytes of {output.name}", str(size), "report this: a fault of export")
            crcs[output.name] = crc
        file.flush()
        os.fsync(file.fileno())


def _read_back(
    target: Path, names: Sequence[str], groups: Sequence[Sequence[Output]], crcs: dict[str, int], progress: Progress
) -> str:
    """sha256 over each tensor's [name, dtype, shape] and bytes, of what the files hold now."""
    digest = hashlib.sha256()
    total, done = sum(output.bytes for group in groups for output in group), 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    for name, group in zip(names, groups, strict=True):
        with (target / name).open("rb", buffering=0) as file:
            header = _header(group)
            if file.read(len(header)) != header:
                raise _not_written(name)
            for output in group:
                digest.update(json.dumps([output.name, output.dtype, output.shape]).encode())
                crc, left = 0, output.bytes
                while left:
                    count = file.readinto(buffer[: min(left, len(buffer))])
                    if not count:
                        raise _not_written(name)
                    crc = zlib.crc32(buffer[:count], crc)
                    digest.update(buffer[:count])
                    left -= count
                    done += count
                    progress(f"reading back {output.name}", done, total)
                if crc != crcs[output.name]:
                    raise _not_written(name)
    return digest.hexdigest()


def _not_written(name: str) -> ExportError:
    return ExportError(f"{name} on the disk as it was written", "other bytes", "check the disk, then export again")
