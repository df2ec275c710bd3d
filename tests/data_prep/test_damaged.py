"""Five hundred damaged inputs: each is quarantined for its reason, none crashes the command, none gets through.

Every maker below takes a number and gives a damage that differs with it: another cut, another byte, another size.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.prepare import prepare
from data_prep.records import REASONS
from data_prep.sources import open_source
from medix.errors import ConfigError

Picture = Callable[..., bytes]
Row = dict[str, Any]


def noise(seed: int, form: str) -> bytes:
    """Noise does not compress, so a cut is sure to take pixels away."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def cut(seed: int, form: str) -> bytes:
    data = noise(seed, form)
    return data[: random.Random(seed).randrange(len(data) // 8, len(data) * 7 // 8)]


def flipped(seed: int) -> bytes:
    """A PNG with one byte of its compressed pixels changed: its checksum fails."""
    data = bytearray(noise(seed, "PNG"))
    data[random.Random(seed).randrange(len(data) // 4, len(data) // 2)] ^= 0x55
    return bytes(data)


def bomb(seed: int) -> bytes:
    """A PNG of some gigapixels in a few bytes."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 20000 + seed, 20000 + 7 * seed, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 1000) + b"IDAT" + zlib.compress(bytes(1000))


def narrow(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 300 + seed)).save(buffer, "PNG")
    return buffer.getvalue()


def bad_dicom(seed: int) -> bytes:
    return bytes(128) + b"DICM" + random.Random(seed).randbytes(40 + 9 * seed)


def asked(number: int, **fields: Any) -> Row:
    return {"question": f"q{number}?", "answer": "a"} | fields


DAMAGED = {"damaged_image"}
PICTURES: list[tuple[str, Callable[[int], bytes], str, set[str]]] = [
    ("truncated PNG", lambda n: cut(n, "PNG"), "png", DAMAGED),
    ("truncated JPEG", lambda n: cut(n, "JPEG"), "jpg", DAMAGED),
    ("truncated BMP", lambda n: cut(n, "BMP"), "bmp", DAMAGED),
    ("truncated GIF", lambda n: cut(n, "GIF"), "gif", DAMAGED),
    ("truncated TIFF", lambda n: cut(n, "TIFF"), "tif", DAMAGED),
    ("truncated WEBP", lambda n: cut(n, "WEBP"), "webp", DAMAGED),
    ("flipped byte", flipped, "png", DAMAGED),
    ("JPEG called PNG", lambda n: noise(n, "JPEG"), "png", {"wrong_extension"}),
    ("PNG called JPEG", lambda n: noise(n, "PNG"), "jpg", {"wrong_extension"}),
    ("PNG called DICOM", lambda n: noise(n, "PNG"), "dcm", {"wrong_extension"}),
    ("zero bytes", lambda n: b"", "png", {"empty_image"}),
    ("a web page", lambda n: b"<html>404 " + b"x" * n, "jpg", {"unknown_image_format"}),
    ("random bytes", lambda n: b"\x01" + random.Random(n).randbytes(50 + n), "png", {"unknown_image_format"}),
    ("bomb", bomb, "png", {"image_too_large"}),
    ("too narrow", narrow, "png", {"image_too_narrow"}),
    ("bad DICOM", bad_dicom, "dcm", {"bad_dicom"}),
]
ROWS: list[tuple[str, Callable[[int], Row], set[str]]] = [
    ("no question", lambda n: {"answer": "a"}, {"bad_field"}),
    ("blank question", lambda n: {"question": " " * n, "answer": "a"}, {"bad_field"}),
    ("no answer", lambda n: {"question": f"q{n}?"}, {"no_answer"}),
    ("answer of the wrong type", lambda n: {"question": f"q{n}?", "answer": [[n]]}, {"bad_field"}),
    ("yes as a truth value", lambda n: {"question": f"q{n}?", "answer": n % 2 == 0}, {"bad_field"}),
    ("unknown modality", lambda n: asked(n, modality=f"XRAY{n}"), {"bad_modality"}),
    ("unknown kind", lambda n: asked(n, answer_kind=f"k{n}"), {"bad_field"}),
    ("aliases of the wrong type", lambda n: asked(n, aliases=n + 1), {"bad_field"}),
    ("NUL character", lambda n: {"question": f"q{n}\x00?", "answer": "a"}, {"bad_field"}),
    ("answer that closes its block", lambda n: asked(n, answer=f"a</answer>{n}"), {"unscorable_answer"}),
    ("answer with a block in it", lambda n: {"question": f"q{n}?", "answer": f"<thinking>{n}"}, {"unscorable_answer"}),
    ("missing image", lambda n: asked(n, images=[f"none{n}.png"]), {"missing_image"}),
    ("image elsewhere", lambda n: asked(n, images=["../" * n]), {"image_outside_folder", "missing_image"}),
    ("image of the wrong type", lambda n: asked(n, images=[n + 1]), {"bad_field"}),
    ("image with a NUL in its name", lambda n: asked(n, images=["\x00"]), {"missing_image"}),
]
LINES: list[tuple[str, Callable[[int], bytes], set[str]]] = [
    ("cut JSON", lambda n: json.dumps({"question": "q" * n, "answer": "a"}).encode()[: 10 + n], {"bad_json"}),
    ("not an object", lambda n: json.dumps([[n], n, "text", None][n % 4]).encode(), {"bad_json"}),
    ("nested without end", lambda n: b"[" * (50_000 + n), {"bad_json"}),
    ("Latin-1", lambda n: '{"question": "Où?", "answer": "é"}'.encode("latin-1"), {"not_utf8"}),
    ("UTF-16", lambda n: '{"question": "q"}'.encode("utf-16-be").replace(b"\n", b""), {"bad_json", "not_utf8"}),
    ("lone surrogate", lambda n: b'{"question": "\\ud800", "answer": "a"}', {"not_utf8"}),
]
EACH = 13
"""Of every maker: (16 + 15 + 6) x 13 = 481, and 9 more in `table` and as repeated ids."""


def jsonl(root: Path) -> Iterator[tuple[str, set[str]]]:
    """Write the damaged rows; yields (id in the quarantine, reasons it may have)."""
    (root / "images").mkdir(parents=True)
    lines: list[bytes] = []
    for number in range(1, EACH + 1):
        for name, picture, suffix, reasons in PICTURES:
            path = f"images/{name}-{number}.{suffix}".replace(" ", "_")
            (root / path).write_bytes(picture(number))
            row_id = f"{name}-{number}"
            row = {"id": row_id, "question": f"{row_id}?", "answer": "a", "images": [path]}
            lines.append(json.dumps(row).encode())
            yield row_id, reasons
        for name, make, reasons in ROWS:
            lines.append(json.dumps({"id": f"{name}-{number}"} | make(number)).encode())
            yield f"{name}-{number}", reasons
        for _, line, reasons in LINES:
            lines.append(line(number))
            yield f"train.jsonl:{len(lines) - 1}", reasons
    for number in range(5):
        lines += [json.dumps({"id": "good", "question": f"Good {number}?", "answer": "a"}).encode()]
    yield from [("good", {"duplicate_id"})] * 4
    (root / "train.jsonl").write_bytes(b"\n".join(lines))


def table(root: Path) -> Iterator[tuple[str, set[str]]]:
    """A text table with damaged lines; the good rows around them are read."""
    root.mkdir()
    lines = [b"question,answer", b"one?,a,b", b"two?", b"\xe9?,a", b'three?,"a"b', b'four?,"a']
    good = [b"fine %d?,a" % number for number in range(3)]
    (root / "rows.csv").write_bytes(b"\n".join([*lines, *good]) + b"\n")
    for number, reason in enumerate(("wrong_columns", "wrong_columns", "not_utf8", "bad_table_row", "bad_table_row")):
        yield f"rows.csv:{number}", {reason}


def parquet_cut_at(share: float) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"question": "q?", "answer": "a"}] * 9), buffer)
    return buffer.getvalue()[: int(share * len(buffer.getvalue()))]


WHOLE: list[tuple[str, bytes, bool]] = [
    *[(f"part{n}.parquet", parquet_cut_at(n / 10), True) for n in range(0, 10, 3)],
    ("object.json", b'{"question": "q"}', False),
    ("broken.json", b'[{"question": ', True),
    ("deep.json", b"[" * 60_000, True),
    ("latin1.json", '["é"]'.encode("latin-1"), True),
    ("columns.csv", b"frage,antwort\nq?,a\n", False),
    ("twice.csv", b"question,question,answer\nq?,q?,a\n", True),
    ("empty.jsonl", b"", False),
    ("texts.jsonl", b'"a"\n"b"\n', False),
]
"""Name, content, and whether it is refused beside a good table too; the others are no tables of questions then."""


@pytest.mark.parametrize(("name", "content", "always"), WHOLE, ids=[name for name, _, _ in WHOLE])
def test_a_table_that_cannot_be_read_is_one_error_that_names_it(
    name: str, content: bytes, always: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        open_source(f"table:{tmp_path / name}")
    (tmp_path / "good.jsonl").write_text('{"question": "q?", "answer": "a"}\n')
    if always:
        with pytest.raises(ConfigError, match=name):
            open_source(f"table:{tmp_path}")
    else:
        assert open_source(f"table:{tmp_path}").passed_over == (name,)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, set[str]]], list[Row], dict[str, Any]]:
    root = tmp_path_factory.mktemp("damaged")
    expected = [*jsonl(root / "rows"), *table(root / "table")]
    sources = [f"jsonl:{root / 'rows'}", f"csv:{root / 'table'}?name=c"]
    manifest = prepare(sources, root / "out", workers=0, max_quarantine=1.0)
    lines = (root / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return expected, [json.loads(line) for line in lines], manifest


def test_there_are_five_hundred(outcome: Any) -> None:
    assert len(outcome[0]) >= 490


def test_every_damage_is_in_the_quarantine_for_its_reason(outcome: Any) -> None:
    expected, found, _ = outcome
    left = [(row["id"], row["reason"]) for row in found]
    for row_id, reasons in expected:
        match = next((entry for entry in left if entry[0] == row_id and entry[1] in reasons), None)
        assert match, f"{row_id} is not quarantined for {reasons}, but {[e for e in left if e[0] == row_id]}"
        left.remove(match)
    assert left == []


def test_nothing_else_got_through_and_all_is_counted(outcome: Any) -> None:
    expected, found, manifest = outcome
    assert manifest["rows"] == {"read": len(expected) + 4, "kept": 4, "quarantined": len(expected)}
    counted = {reason: facts["rows"] for reason, facts in manifest["quarantine"]["reasons"].items()}
    assert sum(counted.values()) == len(found)
    assert set(counted) <= set(REASONS)
