"""Local parquet with the columns of `jsonl`; images as paths, as bytes, or as `{bytes, path}` like the Hub's."""

from __future__ import annotations

from typing import ClassVar

from data_prep.sources.jsonl import JsonlSource


class ParquetSource(JsonlSource):
    """A file, or a folder of files named after their split."""

    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    columns: ClassVar[tuple[str, ...]] = ("question", "answer")
