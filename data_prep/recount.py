"""Prompt lengths of a prepared file for any model, from image headers and text alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from data_prep.schema import ROWS_PER_GROUP
from data_prep.tokens import Size, TokenCounter


def count_prepared(path: Path, counter: TokenCounter) -> Iterator[int]:
    """Prompt tokens of each row of a prepared file, in order. Holds one row group at a time; decodes no pixel."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=["prompt", "images.list.element.bytes"]):
            rows = batch.to_pylist()
            sizes = [[image_size(image["bytes"]) for image in row["images"]] for row in rows]
            yield from counter.count([row["prompt"] for row in rows], sizes)


def image_size(data: bytes) -> Size:
    """(width, height) from the header of an encoded image."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size
