"""Reading tables in stretches: JSONL, CSV, JSON arrays and parquet, with a bound on what is in memory."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.records import Unfit

MAX_LINE_BYTES: Final = 32 * 2**20
_BATCH_ROWS: Final = 16

Row = Mapping[str, Any] | Unfit


@dataclass(frozen=True)
class Chunk:
    """A stretch of one file. Picklable; carries rows only where the format can not be entered in the middle."""

    path: Path
    split: str
    first: int
    """Number of the first row, from 0."""
    rows: int
    offset: int = 0
    """JSONL: where the first row begins, in bytes."""
    groups: tuple[int, ...] = ()
    """Parquet: row groups."""
    payload: tuple[Row, ...] = ()
    fault: Unfit | None = None
    """The whole file is refused."""

    def cut(self, rows: int) -> Chunk:
        """The first `rows` rows of it."""
        return self if rows >= self.rows else dataclasses.replace(self, rows=rows, payload=self.payload[:rows])


def plan(path: Path, split: str, rows: int) -> Iterator[Chunk]:
    """Cut a table into stretches of about `rows` rows. A file that can not be read is one stretch with a fault."""
    try:
        yield from {".jsonl": _plan_jsonl, ".parquet": _plan_parquet}.get(path.suffix, _plan_whole)(path, split, rows)
    except Unfit as unfit:
        yield Chunk(path, split, 0, 1, fault=unfit)
    except (OSError, pa.ArrowException, ValueError) as error:
        yield Chunk(path, split, 0, 1, fault=Unfit("unreadable_file", f"{type(error).__name__}: {error}"[:160]))


def rows(chunk: Chunk, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """(row number, row) pairs of a stretch; a row that can not be parsed is an `Unfit`.

    Raises:
        Unfit: the file as a whole is refused.
    """
    if chunk.fault is not None:
        raise chunk.fault
    if chunk.groups:
        yield from _rows_parquet(chunk, columns)
    elif chunk.path.suffix == ".jsonl":
        yield from _rows_jsonl(chunk)
    else:
        for number, row in enumerate(chunk.payload, chunk.first):
            if not isinstance(row, Unfit) and (missing := [c for c in columns if c not in row]):
                row = Unfit("wrong_columns", f"{', '.join(missing)} missing")
            yield number, row


def _plan_jsonl(path: Path, split: str, size: int) -> Iterator[Chunk]:
    first = count = offset = start = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            offset += len(line)
            while line and not line.endswith(b"\n"):  # the rest of a line beyond the bound
                line = file.readline(MAX_LINE_BYTES)
                offset += len(line)
            count += 1
            if count == size:
                yield Chunk(path, split, first, count, offset=start)
                first, count, start = first + count, 0, offset
    if count:
        yield Chunk(path, split, first, count, offset=start)


def _rows_jsonl(chunk: Chunk) -> Iterator[tuple[int, Row]]:
    with chunk.path.open("rb") as file:
        file.seek(chunk.offset)
        for number in range(chunk.first, chunk.first + chunk.rows):
            line = file.readline(MAX_LINE_BYTES)
            too_long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
            rest = line
            while too_long and rest and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES)
            if not line.strip():
                continue
            yield number, Unfit("line_too_long", f"over {MAX_LINE_BYTES} bytes") if too_long else _parse_json(line)


def _parse_json(line: bytes) -> Row:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Unfit("not_utf8", f"byte {error.start} of the line")
    except (ValueError, RecursionError) as error:
        return Unfit("bad_json", str(error)[:120])
    return checked_object(value)


def checked_object(value: Any) -> Row:
    """A JSON object whose texts can be written as UTF-8 (a lone surrogate escape can not)."""
    if not isinstance(value, dict):
        return Unfit("bad_json", f"a {type(value).__name__}, not an object")
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Unfit("not_utf8", "a lone surrogate in a text")
    return value


def _plan_whole(path: Path, split: str, size: int) -> Iterator[Chunk]:
    """CSV, TSV and JSON arrays: quoted line ends and nesting forbid entering in the middle, so rows travel along."""
    yield from plan_rows(path, split, size, _rows_json(path) if path.suffix == ".json" else _rows_csv(path))


def plan_rows(path: Path, split: str, size: int, parsed: Iterable[Row]) -> Iterator[Chunk]:
    """Stretches that carry their rows with them."""
    first = 0
    payload: list[Row] = []
    for row in parsed:
        payload.append(row)
        if len(payload) == size:
            yield Chunk(path, split, first, size, payload=tuple(payload))
            first, payload = first + size, []
    if payload:
        yield Chunk(path, split, first, len(payload), payload=tuple(payload))


def _rows_json(path: Path) -> Iterator[Row]:
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unfit("not_utf8", f"byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise Unfit("bad_json", str(error)[:120]) from error
    if not isinstance(value, list):
        raise Unfit("bad_json", f"a {type(value).__name__}, not a list of objects")
    for item in value:
        yield checked_object(item)


def _rows_csv(path: Path) -> Iterator[Row]:
    # Bytes that are not UTF-8 are let through as surrogates, so that one bad row does not hide the others.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                yield _csv_row(row)
        except csv.Error as error:
            yield Unfit("unreadable_file", f"line {reader.line_num}: {error}"[:120])


def _csv_row(row: dict[Any, Any]) -> Row:
    if None in row:
        return Unfit("wrong_columns", f"{len(row[None])} fields more than the header")
    if None in row.values():
        return Unfit("wrong_columns", "fewer fields than the header")
    if any("\udc80" <= char <= "\udcff" for value in row.values() for char in value):
        return Unfit("not_utf8", "a byte that is not UTF-8")
    return row


def _plan_parquet(path: Path, split: str, size: int) -> Iterator[Chunk]:
    metadata = pq.read_metadata(path)
    first, start, groups = 0, 0, []
    for group in range(metadata.num_row_groups):
        groups.append(group)
        start += metadata.row_group(group).num_rows
        if start - first >= size or group == metadata.num_row_groups - 1:
            if start > first:
                yield Chunk(path, split, first, start - first, groups=tuple(groups))
            first, groups = start, []


def _rows_parquet(chunk: Chunk, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    number = chunk.first
    try:
        with pq.ParquetFile(chunk.path, pre_buffer=False) as file:
            if missing := [c for c in columns if c not in file.schema_arrow.names]:
                raise Unfit("wrong_columns", f"{', '.join(missing)} missing")
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=list(chunk.groups)):
                for row in batch.to_pylist():
                    if number >= chunk.first + chunk.rows:
                        return
                    yield number, row
                    number += 1
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise Unfit("unreadable_file", f"from row {number}: {type(error).__name__}: {error}"[:160]) from error
