"""Prompt lengths of a prepared file for any model, from image headers and text alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_prep.schema import ROWS_PER_GROUP
from data_prep.tokens import Size, TokenCounter

_PNG: Final = b"\x89PNG\r\n\x1a\n"


def count_prepared(path: Path, counter: TokenCounter) -> Iterator[int]:
    """Prompt tokens of each row of a prepared file, in order. Holds one row group at a time; decodes no pixel."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=["prompt", "images.list.element.bytes"]):
            # Images stay in Arrow's memory: turning them into Python bytes would cost more than all the rest.
            sizes = [[image_size(image["bytes"].as_buffer()) for image in row] for row in batch.column("images")]
            yield from counter.count(batch.column("prompt").to_pylist(), sizes)


def image_size(data: pa.Buffer) -> Size:
    """(width, height) from the header of an encoded image."""
    head = data.slice(0, min(data.size, 24)).to_pybytes()
    if head.startswith(_PNG) and head[12:16] == b"IHDR":
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    with Image.open(pa.BufferReader(data)) as image:
        return image.size
