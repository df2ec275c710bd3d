"""Shards to the files a recipe names: one `train.parquet`, one `val.parquet`, rows numbered, dropped rows left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.schema import ROW_SCHEMA, ROWS_PER_GROUP
from data_prep.shards import ShardResult, rows_path

RowKey = tuple[int, int]
"""(shard, position of the row in it)."""


def assemble(folder: Path, out: Path, results: Sequence[ShardResult], dropped: Mapping[RowKey, Any]) -> dict[str, int]:
    """Write the split files; returns the rows of each. A split without rows has no file."""
    writers: dict[str, pq.ParquetWriter] = {}
    temporary: dict[str, Path] = {}
    rows: dict[str, int] = {}
    try:
        for split, batch in _batches(folder, results, dropped):
            if split not in writers:
                temporary[split] = out / f".{split}.{os.getpid()}.tmp"
                writers[split] = pq.ParquetWriter(temporary[split], ROW_SCHEMA, compression="snappy")
            first = rows.setdefault(split, 0)
            writers[split].write_table(pa.Table.from_batches([_numbered(batch, first)], schema=ROW_SCHEMA))
            rows[split] = first + batch.num_rows
    finally:
        for writer in writers.values():
            writer.close()
    for split, path in temporary.items():
        os.replace(path, out / f"{split}.parquet")
    return rows


def _batches(
    folder: Path, results: Sequence[ShardResult], dropped: Mapping[RowKey, Any]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """(split, rows) in the order of the sources, a row group at a time."""
    for result in results:
        if result.evaluation or not result.facts:
            continue
        splits = [
            None if (result.index, position) in dropped else fact.split for position, fact in enumerate(result.facts)
        ]
        position = 0
        with pq.ParquetFile(rows_path(folder, result.index), pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
                here = splits[position : position + batch.num_rows]
                position += batch.num_rows
                for split in sorted({s for s in here if s is not None}):
                    yield split, batch.filter(pa.array([s == split for s in here]))


def _numbered(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """The batch with `extra_info.index` counting on from `first`."""
    column = batch.schema.get_field_index("extra_info")
    info = batch.column(column)
    fields = list(info.type)
    arrays = [info.field(i) for i in range(len(fields))]
    index = next(i for i, field in enumerate(fields) if field.name == "index")
    arrays[index] = pa.array(range(first, first + batch.num_rows), pa.int64())
    return batch.set_column(column, batch.schema.field(column), pa.StructArray.from_arrays(arrays, fields=fields))
