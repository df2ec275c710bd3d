"""Read tables in stretches: JSON lines, JSON, separated text and parquet, with a bound on what is in memory.

A row that cannot be parsed becomes an `Unfit`, and reading goes on behind it; a file that cannot be read at all is one
stretch with a fault.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.records import Unfit
from data_prep.sources.conversations import exchange
from data_prep.sources.splits import split_of_word

MAX_LINE_BYTES: Final = 32 * 2**20
MAX_JSON_BYTES: Final = 2 * 2**30
_MOST_LINES: Final = 1_000
"""Of one quoted field of a text table: a quote that closes later than this was never meant to open."""
_BATCH_ROWS: Final = 8
_DELIMITERS: Final = (",", "\t", "|", ";")
FORMS: Final[dict[str, str]] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".pq": "parquet",
    ".csv": "text", ".tsv": "text", ".psv": "text", ".txt": "text",
}  # fmt: skip
"""Suffix -> how the file is read."""
_NOT_READ: Final = re.compile(r"\.(jsonl?|ndjson|csv|tsv|psv|parquet)\.(gz|bz2|xz|zst)$|\.(xlsx?|ods|arrow|feather)$")
"""Ends of the names of tables that are not read here."""
_FAULTS: Final = (OSError, pa.ArrowException, ValueError, RecursionError, MemoryError, OverflowError)

_FOREIGN: Final = {
    b"\x1f\x8b": "it is packed by gzip: unpack it", b"PK\x03\x04": "it is a ZIP file or a workbook: save it as CSV",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8", b"\xfe\xff": "it is UTF-16: save it as UTF-8",
}  # fmt: skip
"""First bytes of files that are no table here -> what to do."""

Row = Mapping[str, Any] | Unfit


@dataclass(frozen=True)
class Form:
    """How a file is written."""

    kind: Literal["jsonl", "json", "text", "parquet", "folder"]
    delimiter: str = ","
    quoted: bool = True
    header: tuple[str, ...] = ()
    """Column names of a text table whose first line is a row."""
    conversation: str = ""
    """Column that holds question and answer as turns of a conversation."""


@dataclass(frozen=True)
class Stretch:
    """Some rows of one file. Picklable; carries rows only where the format cannot be entered in the middle."""

    path: Path
    form: Form
    first: int
    """Number of the first row, from 0."""
    rows: int
    offset: int = 0
    """JSON lines: where the first row begins, in bytes."""
    groups: tuple[int, ...] = ()
    """Parquet: row groups."""
    payload: tuple[Row, ...] = ()
    fault: Unfit | None = None
    """The whole file is refused."""


def is_table(path: Path) -> bool:
    """Return whether a file is named as a table, of a form that is read here or not."""
    return path.suffix.lower() in FORMS or bool(_NOT_READ.search(path.name.lower()))


def form_of(path: Path, header: Sequence[str] = ()) -> Form:
    """Return how a file is written, by its suffix and its first bytes.

    Raises:
        Unfit: the file cannot be opened.
    """
    kind = FORMS.get(path.suffix.lower(), "text")
    try:
        with path.open("rb") as file:
            head = file.read(2**16)
    except OSError as error:
        raise Unfit("unreadable_file", f"{type(error).__name__}: {error.strerror}") from error
    if kind == "parquet":
        return Form("parquet")
    for magic, remedy in _FOREIGN.items():
        if head.startswith(magic):
            raise Unfit("unreadable_file", remedy)
    if head.count(0) > len(head) // 4:
        raise Unfit("unreadable_file", "it holds NUL bytes, as UTF-16 does: save it as UTF-8 text")
    text = head.decode("utf-8-sig", "replace")
    line, _, rest = text.partition("\n")
    if kind in ("jsonl", "json"):
        # JSON lines under the name .json: the first line is an object, and another one follows.
        lines = kind == "jsonl" or (isinstance(parse_json(line.encode()), Mapping) and rest.strip())
        return Form("jsonl" if lines and text.lstrip()[:1] != "[" else "json")
    delimiter = max(_DELIMITERS, key=line.count)
    return Form("text", delimiter, path.suffix.lower() != ".txt" or delimiter in ",;", tuple(header))


def plan(path: Path, form: Form, size: int) -> Iterator[Stretch]:
    """Cut a table into stretches of about `size` rows."""
    try:
        if form.kind == "jsonl":
            yield from _plan_jsonl(path, form, size)
        elif form.kind == "parquet":
            yield from _plan_parquet(path, form, size)
        else:
            # Quoted line ends and nesting forbid entering in the middle, so the rows travel with the plan.
            yield from plan_rows(path, form, size, _json_rows(path) if form.kind == "json" else _text_rows(path, form))
    except Unfit as unfit:
        yield Stretch(path, form, 0, 1, fault=unfit)
    except _FAULTS as error:
        yield Stretch(path, form, 0, 1, fault=Unfit("unreadable_file", f"{type(error).__name__}: {error}"[:160]))


def plan_rows(path: Path, form: Form, size: int, parsed: Iterable[Row]) -> Iterator[Stretch]:
    """Cut rows into stretches that carry them."""
    first = 0
    payload: list[Row] = []
    for row in parsed:
        payload.append(row)
        if len(payload) == size:
            yield Stretch(path, form, first, size, payload=tuple(payload))
            first, payload = first + size, []
    if payload:
        yield Stretch(path, form, first, len(payload), payload=tuple(payload))


def rows(stretch: Stretch, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Row]]:
    """Yield (row number, row) of a stretch.

    Args:
        columns: of parquet, the only ones to read; None reads all.

    Raises:
        Unfit: the file, or what is left of the stretch, cannot be read.
    """
    if stretch.fault is not None:
        raise stretch.fault
    name = stretch.form.conversation
    if stretch.groups:
        found = _parquet_rows(stretch, columns if columns is None or not name else (*columns, name))
    elif stretch.payload:
        found = enumerate(stretch.payload, stretch.first)
    else:
        found = _jsonl_rows(stretch)
    for number, row in found:
        yield number, row if isinstance(row, Unfit) or not name else exchange(row, name)


def sample(path: Path, form: Form, count: int) -> tuple[tuple[str, ...], list[Mapping[str, Any]]]:
    """Return the columns of a table and its first rows; embedded images are there as empty bytes.

    Raises:
        Unfit: none of its first rows can be read.
    """
    names: tuple[str, ...] = ()
    first: list[Row] = []
    if form.kind == "parquet":
        names, read = _parquet_sample(path, count)
        first = [exchange(row, form.conversation) if form.conversation else row for row in read]
    else:
        first = [row for stretch in itertools.islice(plan(path, form, count), 1) for _, row in rows(stretch)]
    found = [_shortened(row) for row in first if not isinstance(row, Unfit)]
    for row in first:
        # A JSON file beside the tables may hold anything.
        if not found and isinstance(row, Unfit) and (form.conversation or form.kind == "text"):
            raise row
    return tuple(dict.fromkeys([*names, *(name for row in found for name in row)])), found


def _shortened(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row with texts of at most 20,000 characters: what a column is shows before."""
    return {name: value[:20_000] if isinstance(value, str) else value for name, value in row.items()}


def _plan_jsonl(path: Path, form: Form, size: int) -> Iterator[Stretch]:
    first = count = offset = start = 0
    with path.open("rb") as file:
        for _, length in _lines(file):
            offset += length
            count += 1
            if count == size:
                yield Stretch(path, form, first, count, offset=start)
                first, count, start = first + count, 0, offset
    if count:
        yield Stretch(path, form, first, count, offset=start)


def _jsonl_rows(stretch: Stretch) -> Iterator[tuple[int, Row]]:
    with stretch.path.open("rb") as file:
        file.seek(stretch.offset)
        lines = itertools.islice(_lines(file), stretch.rows)
        for number, (line, length) in enumerate(lines, stretch.first):
            if length > MAX_LINE_BYTES:
                yield number, Unfit("line_too_long", f"over {MAX_LINE_BYTES} bytes")
            elif line.strip():
                yield number, parse_json(line)


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of a file, each cut at the bound, and their whole lengths."""
    while line := file.readline(MAX_LINE_BYTES):
        length = len(line)
        part = line
        while not part.endswith(b"\n") and (part := file.readline(MAX_LINE_BYTES)):
            length += len(part)
        yield line, length


def parse_json(line: bytes) -> Row:
    """Return the object on a line."""
    try:
        return _checked_object(_loaded(line))
    except Unfit as unfit:
        return unfit


def _loaded(data: bytes) -> Any:
    """Return what JSON says. `NaN` and `Infinity`, which pandas writes for a missing value, become None."""
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=lambda _: None)
    except UnicodeDecodeError as error:
        raise Unfit("not_utf8", f"byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise Unfit("bad_json", str(error)[:120]) from error


def _checked_object(value: Any) -> Row:
    """Return a JSON object whose texts can be written as UTF-8 (a lone surrogate escape cannot)."""
    if not isinstance(value, dict):
        return Unfit("bad_json", f"a {type(value).__name__}, not an object")
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError, ValueError):
        return Unfit("not_utf8", "a lone surrogate in a text, or too deep")
    return value


def _json_rows(path: Path) -> Iterator[Row]:
    """Read a list of objects, an object of objects by id, or an object that holds a list of objects.

    Lists under names of parts, such as `train` and `test`, are these parts.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise Unfit("unreadable_file", f"over {MAX_JSON_BYTES} bytes: write it as JSON lines")
    value = _loaded(path.read_bytes())
    parts = {k: _listed(v) for k, v in value.items() if split_of_word(k)} if isinstance(value, dict) else {}
    if parts and all(isinstance(v, list) and v and isinstance(v[0], dict) for v in parts.values()):
        value = [{"split": k, **row} if isinstance(row, dict) else row for k, v in parts.items() for row in v]
    # Any other object is one row; a configuration beside the tables is then one without question and answer.
    listed = _listed(value)
    for item in listed if isinstance(listed, list) else [value]:
        yield _checked_object(item)


def _listed(value: Any) -> Any:
    """Return the objects of an object that holds one list of them, or holds them by id; any other value as it is."""
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        if len(lists) == 1:
            return lists[0]
        if value and all(isinstance(v, dict) for v in value.values()):
            return [{"id": key, **row} for key, row in value.items()]
    return value


def _text_rows(path: Path, form: Form) -> Iterator[Row]:
    # Bytes that are not UTF-8 are let through as surrogates, so that one bad row does not hide the others.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        records = _text_records(iter(lambda: file.readline(MAX_LINE_BYTES), ""), form)
        none: list[str] = []
        header = list(form.header) if form.header else next(records, none)
        if isinstance(header, Unfit) or len(set(header)) < len(header):
            raise Unfit("unreadable_file", "the first line is no header, or names a column twice")
        if any("\udc80" <= char <= "\udcff" for name in header for char in name):
            raise Unfit("not_utf8", "its first line is not UTF-8: save it as UTF-8 text")
        for fields in records:
            if isinstance(fields, Unfit):
                yield fields
            elif len(fields) != len(header):
                yield Unfit("wrong_columns", f"{len(fields)} fields where the header has {len(header)}")
            elif any("\udc80" <= char <= "\udcff" for field in fields for char in field):
                yield Unfit("not_utf8", "a byte that is not UTF-8")
            else:
                yield dict(zip(header, fields, strict=True))


def _text_records(lines: Iterator[str], form: Form) -> Iterator[list[str] | Unfit]:
    """Yield the fields of each record. A line with a stray quote is refused alone: reading goes on at the next line."""
    csv.field_size_limit(MAX_LINE_BYTES)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE
    waiting: deque[str] = deque()
    width = len(form.header)
    while line := (waiting.popleft() if waiting else next(lines, "")):
        if not line.strip():
            continue
        taken, fault = [line], ""
        fields: list[str] = []
        while True:
            try:
                fields = next(csv.reader(taken, delimiter=form.delimiter, quoting=quoting, strict=True))
                fault = "" if len(taken) == 1 or len(fields) == width else "a quoted field swallows the lines below it"
                break
            except csv.Error as error:
                fault = str(error)
            # An open quote goes on in the next line that holds a quote; any other fault is final.
            more = _until_quote(waiting, lines, _MOST_LINES - len(taken)) if "unexpected end" in fault else []
            taken += more
            if not more or '"' not in more[-1]:
                break
        if fault:
            waiting.extendleft(reversed(taken[1:]))
            yield Unfit("bad_table_row", fault[:120])
            continue
        width = width or len(fields)
        yield fields


def _until_quote(waiting: deque[str], lines: Iterator[str], most: int) -> list[str]:
    taken: list[str] = []
    while len(taken) < most and (line := (waiting.popleft() if waiting else next(lines, ""))):
        taken.append(line)
        if '"' in line:
            break
    return taken


def _plan_parquet(path: Path, form: Form, size: int) -> Iterator[Stretch]:
    metadata = pq.read_metadata(path)
    first, start, groups = 0, 0, []
    for group in range(metadata.num_row_groups):
        groups.append(group)
        start += metadata.row_group(group).num_rows
        if start - first >= size or group == metadata.num_row_groups - 1:
            if start > first:
                yield Stretch(path, form, first, start - first, groups=tuple(groups))
            first, groups = start, []


def _parquet_rows(stretch: Stretch, columns: Sequence[str] | None) -> Iterator[tuple[int, Row]]:
    number = stretch.first
    try:
        with pq.ParquetFile(stretch.path, pre_buffer=False) as file:
            wanted = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
            batches = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=list(stretch.groups), columns=wanted)
            for batch in batches:
                if batch.nbytes > _BATCH_ROWS * MAX_LINE_BYTES:
                    raise Unfit("unreadable_file", f"from row {number}: rows of over {MAX_LINE_BYTES} bytes")
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except _FAULTS as error:
        raise Unfit("unreadable_file", f"from row {number}: {type(error).__name__}: {error}"[:160]) from error


def _parquet_sample(path: Path, count: int) -> tuple[tuple[str, ...], list[Mapping[str, Any]]]:
    try:
        names = pq.read_schema(path).names
    except _FAULTS as error:
        raise Unfit("unreadable_file", f"{type(error).__name__}: {error}"[:160]) from error
    if len(set(names)) < len(names):
        raise Unfit("unreadable_file", "it names a column twice")
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            schema = file.schema_arrow
            plain = [field.name for field in schema if not _holds_bytes(field.type)]
            embedded = {field.name: b"" for field in schema if _holds_bytes(field.type)}
            found = list[dict[str, Any]]()
            taken = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=plain):
                rows: list[dict[str, Any]] = [{} for _ in range(batch.num_rows)]
                for name in plain:
                    try:
                        values = batch.column(name).to_pylist()
                    except _FAULTS:  # a date out of range, say; refused later if the column is read
                        continue
                    for row, value in zip(rows, values, strict=True):
                        row[name] = value
                found += rows
                taken += batch.nbytes
                if len(found) >= count or taken > MAX_LINE_BYTES:
                    break
            found = found or [{} for _ in range(min(count, file.metadata.num_rows))]
            return tuple(schema.names), [{**row, **embedded} for row in found]
    except _FAULTS as error:
        raise Unfit("unreadable_file", f"{type(error).__name__}: {error}"[:160]) from error


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True
    return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
