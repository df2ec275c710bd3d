"""What a foreign or damaged file may look like: damages by format, each from a random generator and a path.

A damage changes one file of a folder. It returns `TOLD` if the format shows that something is wrong (a cut, a broken
sum, a value of the wrong type), `OTHER` if the file may be a good one of other content, as after a changed letter, and
`ENDLESS` if the format has no end: half of a YAML file may be a good one.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TOLD, OTHER, ENDLESS = "told", "other", "endless"
Damage = Callable[[Random, Path], str]
SECRET = "a secret of another folder"
ELSEWHERE = Path(tempfile.gettempdir()) / f"medix-fuzz-{os.getpid()}.json"
"""A file that holds the secret; links lead to it."""
PWNED = "pwned"
"""Name of the folder that hostile code would make in the working directory."""


def rewrite(change: Callable[[Random, bytes], bytes], says: str = TOLD) -> Damage:
    """Make a damage of a function from bytes to bytes."""

    def damage(rng: Random, path: Path) -> str:
        path.write_bytes(change(rng, path.read_bytes()))
        return says

    return damage


def replaced(make: Callable[[Path], object]) -> Damage:
    """Make a damage that puts something else in the place of the file."""

    def damage(rng: Random, path: Path) -> str:
        path.unlink()
        make(path)
        return TOLD

    return damage


def _link_out(path: Path) -> None:
    ELSEWHERE.write_text(json.dumps({"key": SECRET, "id": SECRET}) + "\n")
    path.symlink_to(ELSEWHERE)


def _flip(rng: Random, data: bytes) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _hole(rng: Random, data: bytes) -> bytes:
    start, length = rng.randrange(len(data) or 1), rng.choice((20, 400))
    return data[:start] + bytes(length) + data[start + length :]


def _cut(rng: Random, path: Path) -> str:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) * 9 // 10 or 1)].rstrip()[:-1])
    return ENDLESS if path.suffix in (".yaml", ".jinja", ".txt") else TOLD


BYTES: dict[str, Damage] = {
    "cut": _cut,
    "emptied": rewrite(lambda rng, data: b""),
    "zeroed": rewrite(lambda rng, data: bytes(len(data))),
    "a hole of NULs": rewrite(_hole, OTHER),
    "flipped bits": rewrite(_flip, OTHER),
    "random": rewrite(lambda rng, data: rng.randbytes(rng.choice((7, 4000)))),
    "removed": lambda rng, path: path.unlink() or TOLD,  # type: ignore[func-returns-value]
    "a folder": replaced(Path.mkdir),
    "a FIFO": replaced(os.mkfifo),
    "a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "a link out of the folder": replaced(_link_out),
}
"""For a file of any format."""

VALUES: tuple[Any, ...] = (
    None, True, 0, -3, 5, 1e308, float("nan"), float("inf"), "", " ", "x" * 70_000, "\0", "\ud800", "../../secret", [],
    {}, [[]], {"a": [None]}, "<script>alert(1)</script>", "</answer>", "\u202e", "2026-99-99", "$(mkdir pwned)",
    "${oc.env:HOME}",
)  # fmt: skip
DEEP = "[" * 100_000 + "]" * 100_000
RAW = ("1" * 5000, "1e999", "-1e999", "NaN", DEEP, '{"a":' * 100_000, "'", "0x1", "{} {}")
"""Written in the place of a value as they are."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in [(*path, key), *_places(one, (*path, key))]]


def _in_value(rng: Random, text: str) -> str:
    """Change one place of a JSON document: another value, a key that is gone, twice there or misspelt."""
    document = json.loads(text)
    if not (places := _places(document)):
        return "{}"
    *way, last = rng.choice(places)
    holder = document
    for key in way:
        holder = holder[key]
    how = rng.choice(("value", "value", "raw", "gone", "renamed", "twice"))
    if how == "gone":
        del holder[last]
    elif how == "renamed" and isinstance(holder, dict):
        holder[f"{last}x"] = holder.pop(last)
    elif how == "twice" and isinstance(holder, dict):
        holder["@twice"] = rng.choice(VALUES)
        return json.dumps(document).replace('"@twice"', json.dumps(last))
    elif how == "raw":
        holder[last] = "@raw"
        return json.dumps(document).replace('"@raw"', rng.choice(RAW))
    else:
        holder[last] = rng.choice(VALUES)
    return json.dumps(document)


def _json(rng: Random, data: bytes) -> bytes:
    return _in_value(rng, data.decode()).encode("utf-8", "surrogatepass")


def _line(change: Callable[[Random, bytes], bytes]) -> Callable[[Random, bytes], bytes]:
    def in_lines(rng: Random, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        lines[place] = change(rng, lines[place])
        return b"".join(lines)

    return in_lines


JSON: dict[str, Damage] = {
    "a value, a key": rewrite(_json, OTHER),
    "not an object": rewrite(lambda rng, data: rng.choice((b"[]", b"null", b'"x"', b"3", DEEP.encode()))),
}
LINES: dict[str, Damage] = {
    "a value in a line": rewrite(_line(_json), OTHER),
    "a line cut": rewrite(_line(lambda rng, line: line[: len(line) // 2] + b"\n")),
    "a half line at the end": rewrite(lambda rng, data: data[:-40]),
    "a line no JSON": rewrite(_line(lambda rng, line: rng.choice((b"[1]\n", b"\xff\xfe\n", DEEP.encode() + b"\n")))),
    "a line twice": rewrite(_line(lambda rng, line: line * 2), OTHER),
    "a very long line": rewrite(_line(lambda rng, line: line[:-2] + b',"x":"' + b"x" * 40_000_000 + b'"}\n'), OTHER),
    "Windows-1252": rewrite(lambda rng, data: data.replace(b"e", "é".encode("cp1252"))),
    "UTF-16": rewrite(lambda rng, data: data.decode().encode("utf-16")),
    "a byte order mark": rewrite(lambda rng, data: b"\xef\xbb\xbf" + data, OTHER),
    "carriage returns": rewrite(lambda rng, data: data.replace(b"\n", b"\r\n"), OTHER),
}
_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE_YAML = (
    _BOMB, "a: &a [*a]\n", "<<: &m {<<: *m}\n", "!!python/object/apply:os.mkdir [pwned]\n", "a: !!bool foo\n",
    "a: !!int ''\n", "a: !!timestamp foo\n", "a: !!binary '*'\n", "a: 2026-99-99\n", "? [a]\n: b\n", "a: b: c\n",
    "\ta: b\n", "%YAML 9\n---\na: b\n", "a: !x y\n", "--- a\n--- b\n", "a: '" + "x" * 70_000, "{" * 5000,
    "a: 1" + "0" * 5000 + "\n", "a: .nan\n", "a: \x07\n", "password: hunter2secret: x\n", "1: x\n",
    "a: ${oc.env:HOME}\n",
)  # fmt: skip
YAML: dict[str, Damage] = {
    "hostile YAML": rewrite(lambda rng, data: rng.choice(HOSTILE_YAML).encode()),
    "hostile YAML below": rewrite(lambda rng, data: data.rstrip() + b"\n" + rng.choice(HOSTILE_YAML).encode(), OTHER),
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _after_header(*chunks: bytes) -> Damage:
    """Put chunks behind the header of a PNG; of another format nothing stays."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 40, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(40 * 181))) + chunk(b"IEND", b"")
    return rewrite(lambda rng, data: start + b"".join(chunks) + pixels, OTHER)


_HUGE = zlib.compress(bytes(300_000_000), 1)


def _cut_progressive(rng: Random, data: bytes) -> bytes:
    pixels = np.random.default_rng(rng.randrange(99)).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", progressive=rng.random() < 0.7, quality=rng.choice((60, 95)))
    return out.getvalue()[: rng.randrange(700, len(out.getvalue()) * 9 // 10)].rstrip(b"\xff") + b"\xff\xd9"


def _many_scans(rng: Random, data: bytes) -> bytes:
    """A progressive JPEG whose last scan stands there 3,000 times."""
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(out, "JPEG", progressive=True)
    last = out.getvalue().rfind(b"\xff\xda")
    return out.getvalue()[:-2] + out.getvalue()[last:-2] * 3000 + b"\xff\xd9"


def _tiff_pages(rng: Random, data: bytes) -> bytes:
    """A TIFF of a million pages, or one whose first page follows itself."""
    out = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(out, "TIFF")
    whole = bytearray(out.getvalue())
    first = struct.unpack("<I", whole[4:8])[0]
    entries = struct.unpack("<H", whole[first : first + 2])[0]
    table = bytes(whole[first : first + 2 + 12 * entries])
    pages = rng.choice((0, 100_000))
    whole[first + len(table) : first + len(table) + 4] = struct.pack("<I", len(whole) if pages else first)
    for page in range(pages):
        following = len(whole) + len(table) + 4 if page < pages - 1 else 0
        whole += table + struct.pack("<I", following)
    return bytes(whole)


def _frames(form: str, count: int) -> Damage:
    def damage(rng: Random, path: Path) -> str:
        frames = [Image.new("RGB", (60, 40), (n % 256, 0, 0)) for n in range(count)]
        frames[0].save(path, form, save_all=True, append_images=frames[1:])
        return OTHER

    return damage


PICTURES: dict[str, Damage] = {
    "a huge text in a PNG": _after_header(chunk(b"zTXt", b"a\0\0" + _HUGE)),
    "a huge profile in a PNG": _after_header(chunk(b"iCCP", b"a\0\0" + _HUGE)),
    "a wrong sum": rewrite(lambda rng, data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:], OTHER),
    "an animated PNG": _frames("PNG", 300),
    "an animated GIF": _frames("GIF", 300),
    "a cut JPEG with an end": rewrite(_cut_progressive),
    "a JPEG of 3,000 scans": rewrite(_many_scans, OTHER),
    "a TIFF without end": rewrite(_tiff_pages, OTHER),
    "a PPM of 100 million pixels as text": rewrite(
        lambda rng, data: b"P3 10000 9999 255\n" + b"1 " * 20_000_000, OTHER
    ),
    "a bomb": rewrite(
        lambda rng, data: data[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    ),
}


def _wide(rng: Random, path: Path) -> str:
    pq.write_table(pa.table({f"c{n}": ["x"] for n in range(10_000)}), path)
    return TOLD


def _repeated(rng: Random, path: Path) -> str:
    """One text of 4 MB for each of 256 rows, in kilobytes of a dictionary: a gigabyte once it is unpacked."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), pa.array(["x" * 4_000_000]))
    pq.write_table(pa.table({"question": column, "answer": pa.array(["a"] * 256)}), path, compression="zstd")
    return TOLD


def _late(rng: Random, path: Path) -> str:
    table = pq.read_table(path)
    pq.write_table(table.append_column("day", pa.array([2**62] * len(table), pa.timestamp("us"))), path)
    return OTHER


PARQUET: dict[str, Damage] = {"10,000 columns": _wide, "a huge dictionary": _repeated, "dates out of range": _late}
_QUOTES = ('"', '"a"b', '"""', ",", "a,b,c,d,e,f", "\r", "\0")
CSV: dict[str, Damage] = {
    "stray quotes": rewrite(_line(lambda rng, line: rng.choice(_QUOTES).encode() + line)),
    "a header twice": rewrite(lambda rng, data: data.partition(b"\n")[0] + b"\n" + data, OTHER),
    "a quote at the end": rewrite(lambda rng, data: data.rstrip(b"\n") + b'"'),
    **{name: LINES[name] for name in ("Windows-1252", "UTF-16", "a byte order mark", "carriage returns")},
}


def _zip_again(change: Callable[[Random, str, bytes], tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Damage:
    """Pack every member of an archive again, changed."""

    def damage(rng: Random, path: Path) -> str:
        with zipfile.ZipFile(path) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members:
                archive.writestr(*change(rng, name, data))
        return TOLD

    return damage


ZIP: dict[str, Damage] = {
    "bzip2": _zip_again(lambda rng, name, data: (name, bytes(200_000_000)), zipfile.ZIP_BZIP2),
    "deflated zeros": _zip_again(lambda rng, name, data: (name, bytes(300_000_000)), zipfile.ZIP_DEFLATED),
    "names that lead out": _zip_again(lambda rng, name, data: (f"../../{name}", data)),
    "flipped members": _zip_again(lambda rng, name, data: (name, _flip(rng, data))),
}
OF_SUFFIX: dict[str, dict[str, Damage]] = {
    ".json": JSON, ".jsonl": LINES, ".yaml": YAML, ".csv": CSV, ".parquet": PARQUET, ".zip": ZIP,
    **dict.fromkeys((".png", ".jpg", ".gif", ".tif"), PICTURES),
}  # fmt: skip


def damages_of(path: Path) -> dict[str, Damage]:
    """Return the damages for a file: those of its format, and those of any file."""
    return BYTES | OF_SUFFIX.get(path.suffix, {})
