"""The one place that fixes the types of a prepared file's columns; `Sample.to_verl_row` fixes their names."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

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
                ]
            ),
        ),
    ]
)


def wrong_columns(found: pa.Schema) -> list[str]:
    """What of `ROW_SCHEMA` a file has not, or has with another type; further columns are nobody's harm."""
    return [
        f"no {field.name}" if field.name not in found.names else f"{field.name} as {found.field(field.name).type}"
        for field in ROW_SCHEMA
        if field.name not in found.names or found.field(field.name).type != field.type
    ]
