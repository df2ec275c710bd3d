"""The sample set that comes with the project: real medical pictures with exact answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from data_prep.sources.jsonl import JsonlSource
from medix.errors import DataError
from medix.sample import Sample

SOURCE_NAME: Final = "medix_sample"
SAMPLE_DATA: Final = Path(__file__).resolve().parents[2] / "examples" / "sample_data"
"""Folder of the committed set: `train.jsonl`, `test.jsonl`, `images/`, `ATTRIBUTION.md`."""


class SampleSource(JsonlSource):
    """The sample set for `medix prepare sample`; its held-out rows are the validation split."""

    name: ClassVar[str] = SOURCE_NAME
    licence: ClassVar[str] = "per picture, see ATTRIBUTION.md beside the set"

    @classmethod
    def default_root(cls, revision: str) -> Path:
        return SAMPLE_DATA


def read_sample_set(split: str, folder: Path = SAMPLE_DATA) -> Iterator[Sample]:
    """Samples of `split` (`train` or `test`) in the order of the file, images as their encoded bytes.

    Raises:
        DataError: the file of the split or a picture is missing, or a line lacks a field.
    """
    table = folder / f"{split}.jsonl"
    fix = "restore examples/sample_data, or rebuild it with `python -m examples.sample_data.build`"
    if not table.is_file():
        raise DataError(f"the {split} split of the sample set", f"no file {table}", fix)
    with table.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _sample(json.loads(line), split, folder)
            except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError("a sample", f"{table.name}:{number}: {type(error).__name__}: {error}", fix) from error


def _sample(row: dict[str, object], split: str, folder: Path) -> Sample:
    images, aliases, modality = row["images"], row["aliases"], row["modality"]
    if not isinstance(images, list) or not isinstance(aliases, list):
        raise TypeError("'images' and 'aliases' are lists")
    return Sample(
        id=str(row["id"]),
        source=SOURCE_NAME,
        split=split,
        question=str(row["question"]),
        reference=str(row["answer"]),
        images=tuple((folder / str(name)).read_bytes() for name in images),
        modality=None if modality is None else str(modality),
        aliases=tuple(str(alias) for alias in aliases),
    )
