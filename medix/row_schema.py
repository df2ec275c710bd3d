"""The one place that fixes the types of a prepared file's columns; `Sample.to_verl_row` fixes their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from medix.errors import DataError

ROW_SCHEMA: Final = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("sample_id", pa.string()),
                    ("question", pa.string()),
                    ("modality", pa.string()),
                    ("answer_kind", pa.string()),
                    ("aliases", pa.list_(pa.string())),
                    ("split", pa.string()),
                    ("n_tokens", pa.int64()),
                    ("group", pa.string()),
                    ("extra", pa.string()),
                ]
            ),
        ),
    ]
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
    of, kind = pa.types, found.type
    if of.is_struct(wanted.type):
        have = {kind.field(i).name: kind.field(i) for i in range(kind.num_fields)} if of.is_struct(kind) else {}
        parts = [wanted.type.field(i) for i in range(wanted.type.num_fields)]
        return all(part.name in have and _holds(have[part.name], part) for part in parts)
    if of.is_null(kind):
        return wanted.name in MAY_BE_ABSENT
    if of.is_list(wanted.type):
        return bool(of.is_list(kind) or of.is_large_list(kind)) and _holds(kind.value_field, wanted.type.value_field)
    if of.is_string(wanted.type):
        return bool(of.is_string(kind) or of.is_large_string(kind))
    if of.is_binary(wanted.type):
        return bool(of.is_binary(kind) or of.is_large_binary(kind))
    return bool(kind == wanted.type)
