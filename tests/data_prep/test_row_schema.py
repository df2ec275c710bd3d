"""A prepared file that another library rewrote still holds the same; one of other types does not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_prep.row_schema import ROW_SCHEMA, wrong_columns

LARGE_IMAGES = pa.large_list(pa.struct([("bytes", pa.large_binary()), ("path", pa.null())]))
INFO = [(field.name, field.type) for field in ROW_SCHEMA.field("extra_info").type]


def info(**types: pa.DataType | None) -> pa.DataType:
    """The struct with other types for these fields; None leaves a field out."""
    changed = [(name, types.get(name, kind)) for name, kind in INFO]
    return pa.struct([(name, kind) for name, kind in changed if kind is not None])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("data_source", pa.large_string()),
        ("images", LARGE_IMAGES),
        ("reward_model", pa.struct([("ground_truth", pa.large_string()), ("style", pa.string())])),
        ("extra_info", info(modality=pa.null(), aliases=pa.null())),
        ("extra_info", info(aliases=pa.large_list(pa.large_string()))),
    ],
)
def test_what_pandas_and_polars_write_passes(column: str, kind: pa.DataType) -> None:
    found = ROW_SCHEMA.set(ROW_SCHEMA.get_field_index(column), pa.field(column, kind))
    assert wrong_columns(found.append(pa.field("mine", pa.float32()))) == []


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("prompt", pa.string()),
        ("images", pa.list_(pa.binary())),
        ("reward_model", pa.null()),
        ("reward_model", pa.struct([("style", pa.string())])),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.null())])),
        ("extra_info", info(n_tokens=pa.string())),
        ("extra_info", info(question=None)),
    ],
)
def test_other_types_are_named(column: str, kind: pa.DataType) -> None:
    found = ROW_SCHEMA.set(ROW_SCHEMA.get_field_index(column), pa.field(column, kind))
    assert wrong_columns(found) == [f"{column} as {kind}"]
