"""A file written by `torch.save`, read without torch: a zip of uncompressed records and one pickle that names them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medix.errors import ExportError

CHUNK_BYTES = 8 << 20
PICKLE_LIMIT_BYTES = 512 << 20
"""A 30B checkpoint's pickle is some 20 MB: past this it is an attack on our memory."""

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_SAVE_AGAIN = "export another step, or save this one again: the file is damaged"


@dataclass(frozen=True)
class Record:
    """One file inside the archive; `header` is the offset of its local header, in bytes."""

    size: int
    crc: int
    header: int


class Archive:
    """The table of contents of a shard; contents are read with `pread`, so no page of them counts as our memory.

    Attributes:
        stem: the name that the file had when it was saved, without `.pt`: `torch.save` writes it into the archive.
            `archive` where torch was given a stream and knew no name.
        records: by name, without the stem.
    """

    def __init__(self, path: Path) -> None:
        """Raises `ExportError` where the file is not a whole `torch.save` archive."""
        self.path = path
        self.size = path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [(item.filename.partition("/"), item) for item in archive.infolist()]
        except zipfile.BadZipFile:
            raise self._not_whole() from None
        stems = {stem for (stem, _, _), _ in entries}
        if len(stems) != 1 or any(item.compress_type != zipfile.ZIP_STORED for _, item in entries):
            raise ExportError("an archive as torch.save writes it", f"another kind of zip: {path}", _SAVE_AGAIN)
        self.stem = stems.pop()
        self.records = {name: Record(item.file_size, item.CRC, item.header_offset) for (_, _, name), item in entries}
        if len(self.records) != len(entries):
            # Readers differ in which of the two they take.
            raise ExportError("an archive as torch.save writes it", f"two records of one name: {path}", _SAVE_AGAIN)
        if "data.pkl" not in self.records or self.text("byteorder", "little") != "little":
            raise ExportError("a little-endian torch.save archive", f"something else: {path}", _SAVE_AGAIN)

    def _not_whole(self) -> ExportError:
        with self.path.open("rb") as file:
            magic = file.read(2)
        if magic == b"PK":
            found = f"a truncated file of {self.size} bytes, its table of contents cut off: {self.path}"
            return ExportError("a whole shard", found, _SAVE_AGAIN)
        found = f"a file of {self.size} bytes that is no zip: {self.path}"
        return ExportError("a shard in torch.save's zip format", found, _SAVE_AGAIN)

    @property
    def digest(self) -> str:
        """sha256 over the records' names, sizes and CRC32s: names the contents from the last few kilobytes alone.

        It finds accidents (truncated, stale, swapped, damaged), not forgery. `check` compares CRC32s with bytes.
        """
        table = sorted((name, record.size, record.crc) for name, record in self.records.items())
        return hashlib.sha256(json.dumps(table).encode()).hexdigest()

    def text(self, name: str, default: str) -> str:
        """A small text record, `default` where there is none."""
        return self.contents(name).decode() if name in self.records else default

    def contents(self, name: str) -> bytes:
        """A whole small record."""
        record = self._record(name)
        if record.size > PICKLE_LIMIT_BYTES:
            raise ExportError("a pickle of a few megabytes", f"{record.size} bytes in {self.path}", _SAVE_AGAIN)
        return b"".join(bytes(chunk) for chunk in self.stream(name, 0, record.size))

    def stream(self, name: str, start: int, length: int) -> Iterator[memoryview]:
        """`length` bytes of a record from `start`, in chunks that are valid until the next one."""
        begin = self._begin(name) + start
        if start < 0 or start + length > self._record(name).size:
            raise ExportError(f"{start + length} bytes in record {name}", f"fewer: {self.path}", _SAVE_AGAIN)
        buffer = bytearray(min(CHUNK_BYTES, max(length, 1)))
        with self.path.open("rb", buffering=0) as file:
            file.seek(begin)
            while length > 0:
                chunk = memoryview(buffer)[: min(length, len(buffer))]
                filled = 0
                # A network file system may answer with less than was asked for, which could cut an item in two.
                while filled < len(chunk):
                    count = file.readinto(chunk[filled:])
                    if not count:
                        raise ExportError("a whole shard", f"an early end of {self.path}", _SAVE_AGAIN)
                    filled += count
                length -= filled
                yield chunk

    def _record(self, name: str) -> Record:
        if name not in self.records:
            raise ExportError(f"record {name}, which the pickle names", f"none in {self.path}", _SAVE_AGAIN)
        return self.records[name]

    def _begin(self, name: str) -> int:
        """Offset of a record's first byte: its local header may be longer than the table of contents tells."""
        record = self._record(name)
        with self.path.open("rb", buffering=0) as file:
            file.seek(record.header)
            raw = file.read(_LOCAL_HEADER.size)
        if len(raw) != _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
            raise ExportError("a whole shard", f"no record where its table of contents says: {self.path}", _SAVE_AGAIN)
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(raw)
        begin = record.header + _LOCAL_HEADER.size + int(name_length) + int(extra_length)
        if begin + record.size > self.size:
            raise ExportError("a whole shard", f"record {name} reaches past the end of {self.path}", _SAVE_AGAIN)
        return begin

    def check(self, read: Callable[[int], None]) -> None:
        """Compare every record with its CRC32; `read(n)` is told of every n bytes read."""
        for name, record in self.records.items():
            crc = 0
            for chunk in self.stream(name, 0, record.size):
                crc = zlib.crc32(chunk, crc)
                read(len(chunk))
            if crc != record.crc:
                raise ExportError("a whole shard", f"damaged bytes (CRC of {name}) in {self.path}", _SAVE_AGAIN)


def modified_s(path: Path) -> float:
    """Time of the last change, in seconds since 1970: a hint, never a proof."""
    return os.stat(path).st_mtime
