"""The one place that fixes the types of a prepared file's columns; `Sample.to_verl_row` fixes their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from medix.errors import DataError

_TEXT: Final = pa.string()
_INFO: Final = {
    "index": pa.int64(), "sample_id": _TEXT, "question": _TEXT, "modality": _TEXT, "answer_kind": _TEXT,
    "aliases": pa.list_(_TEXT), "split": _TEXT, "n_tokens": pa.int64(), "group": _TEXT, "extra": _TEXT,
}  # fmt: skip
ROW_SCHEMA: Final = pa.schema(
    {
        "data_source": _TEXT,
        "prompt": pa.list_(pa.struct({"role": _TEXT, "content": _TEXT})),
        "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": _TEXT})),
        "ability": _TEXT,
        "reward_model": pa.struct({"style": _TEXT, "ground_truth": _TEXT}),
        "extra_info": pa.struct(_INFO),
    }
)
MAY_BE_ABSENT: Final = frozenset({"path", "modality", "aliases"})
"""Fields that are None in every row of some files: a library that rewrites such a file gives them the type null."""


def wrong_columns(found: pa.Schema) -> list[str]:
    """Return what of `ROW_SCHEMA` a file lacks, or has with another type; further columns do no harm.

    A file that pandas or polars rewrote passes: large strings and lists hold the same.
    """
    return [
        f"no {field.name}" if field.name not in found.names else f"{field.name} as {found.field(field.name).type}"
        for field in ROW_SCHEMA
        if field.name not in found.names or not _holds(found.field(field.name), field)
    ]


def open_prepared(path: Path) -> Any:
    """Return a parquet file of `medix prepare` as a `pyarrow.parquet.ParquetFile`, with rows and the right columns.

    Raises:
        DataError: it is missing, no parquet file, or has no rows or other columns.
    """
    import pyarrow.parquet as pq

    prepare = "Make it with `medix prepare SOURCE --out DIR --model MODEL`."
    if path.suffix != ".parquet" or not path.is_file():
        raise DataError(f"There is no parquet file at {path}.", prepare)
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can not be read as parquet: {error}", prepare) from error
    if wrong := wrong_columns(file.schema_arrow):
        raise DataError(f"{path} has not the columns that `medix prepare` writes: {', '.join(wrong)}.", prepare)
    if file.metadata.num_rows == 0:
        raise DataError(f"{path} has no rows.", prepare)
    return file


def _holds(found: pa.Field, wanted: pa.Field) -> bool:
    of = pa.types
    kind = found.type
    parts = list(wanted.type) if pa.types.is_struct(wanted.type) else []
    if of.is_null(kind):
        return wanted.name in MAY_BE_ABSENT
    if parts:
        have = {part.name: part for part in kind} if of.is_struct(kind) else {}
        return all(part.name in have and _holds(have[part.name], part) for part in parts)
    if of.is_list(wanted.type):
        return bool(of.is_list(kind) or of.is_large_list(kind)) and _holds(kind.value_field, wanted.type.value_field)
    return str(kind).removeprefix("large_") == str(wanted.type)
