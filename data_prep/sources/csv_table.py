"""Local CSV, TSV or JSON array with the columns of `jsonl`; several images or aliases are parted by `|`."""

from __future__ import annotations

from typing import ClassVar

from data_prep.sources.jsonl import JsonlSource


class CsvSource(JsonlSource):
    """A file, or a folder of files named after their split."""

    name: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".json")
    columns: ClassVar[tuple[str, ...]] = ("question", "answer")
