"""What is decoded has bounds in bytes, memory and time, and a damaged file of any kind is one message."""

from __future__ import annotations

import bz2
import contextlib
import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.records import ImageRef, Unfit
from data_prep.sources import records
from data_prep.sources.image_places import members
from medix.errors import MedixError


def packed(path: Path, kind: int, size: int, claimed: int | None = None) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("a.png", bytes(size))
    if claimed is not None:
        data = path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", claimed))
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packed_image_is_bounded_by_what_is_in_it_not_by_what_it_claims(kind: int, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", kind, 50_000_000, claimed=1000)
    with pytest.raises(Unfit, match=r"image_too_large|image_too_costly|damaged_image"):
        ImageRef("a.png", path, packed=True).read(100_000)


def test_an_archive_that_is_a_device_is_not_read(tmp_path: Path) -> None:
    """zipfile looks for the end of the file, and a link to /dev/zero has none: it took all of the memory."""
    (tmp_path / "images.zip").symlink_to("/dev/zero")
    assert members(tmp_path / "images.zip") == frozenset()


def test_a_whole_member_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", zipfile.ZIP_DEFLATED, 5000)
    assert ImageRef("a.png", path, packed=True).read(5000) == bytes(5000)


HUNGRY = """
import resource, sys
from pathlib import Path
from data_prep.prepare import prepare
try:
    prepare(["table:" + sys.argv[1]], sys.argv[2], workers=1, max_quarantine=1.0)
except Exception as error:
    print(type(error).__name__, error)
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024)
"""


@pytest.mark.slow
def test_a_column_that_unpacks_to_gigabytes_ends_in_a_refusal(tmp_path: Path) -> None:
    """One text of 10 MB, 256 times: 2.5 GB in a file of kilobytes, as a dictionary and zstd make it."""
    value = "x" * 10_000_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), pa.array([value]))
    table = pa.table({"question": column, "answer": pa.array(["a"] * 256), "id": pa.array(range(256))})
    pq.write_table(table, tmp_path / "train.parquet", compression="zstd")
    assert (tmp_path / "train.parquet").stat().st_size < 100_000
    script = tmp_path / "hungry.py"
    script.write_text(HUNGRY)
    command = [sys.executable, str(script), str(tmp_path / "train.parquet"), str(tmp_path / "out")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path.cwd(), check=False)
    assert "DataError" in shown.stdout, shown.stderr
    assert "Traceback" not in shown.stderr
    assert int(shown.stdout.splitlines()[-1]) < 1500, shown.stdout


TABLES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.lists(st.text(alphabet='ab",\n\r;|\t', max_size=30), max_size=8).map(
        lambda t: ("question,answer\n" + "\n".join(t)).encode()
    ),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["question", "answer", "options", "image", "id", "split"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
    st.integers(0, 60_000).map(lambda n: b"[" * n),
    st.binary(max_size=80).map(bz2.compress),
)


@settings(max_examples=200, deadline=None)
@given(content=TABLES, suffix=st.sampled_from([".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".pq"]))
def test_any_file_is_read_or_refused_by_one_message(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / f"rows{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(MedixError):
        for item in records(f"table:{path}", ("train", "val", "test")):
            assert item.id


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_parquet_with_one_byte_changed_is_read_or_refused(
    place: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([{"question": f"q{n}", "answer": "a", "image": b"x"} for n in range(20)]), buffer
    )
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    path = tmp_path_factory.mktemp("any") / "rows.parquet"
    path.write_bytes(bytes(data))
    with contextlib.suppress(MedixError):
        assert len(list(records(f"table:{path}", ("train", "val", "test")))) <= 20
