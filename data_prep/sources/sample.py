"""The sample set that comes with the project: real medical pictures with exact answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.images import MAX_BYTES
from data_prep.records import Refusal, Unfit
from data_prep.sources.catalogue import SAMPLE_DATA, SAMPLE_NAME
from data_prep.sources.opening import records
from medix.errors import DataError
from medix.sample import Sample


def read_sample_set(split: str, folder: Path = SAMPLE_DATA) -> Iterator[Sample]:
    """Yield the samples of `split` (`train` or `test`) in the order of the file, images as their encoded bytes.

    Raises:
        DataError: the file of the split or a picture is missing, or a line lacks a field.
    """
    fix = "Restore examples/sample_data, or rebuild it with `python -m examples.sample_data.build`."
    table = folder / f"{split}.jsonl"
    if not table.is_file():
        raise DataError(f"The sample set has no file {table}.", fix)
    for record in records(f"jsonl:{table}?name={SAMPLE_NAME}", [split]):
        if isinstance(record, Refusal):
            raise DataError(f"Row {record.id} of the sample set cannot be read: {record.detail}.", fix)
        try:
            images = tuple(ref.read(MAX_BYTES) for ref in record.images)
        except Unfit as error:
            raise DataError(
                f"A picture of row {record.id} of the sample set is missing: {error.detail}.", fix
            ) from error
        yield Sample(
            id=record.id,
            source=SAMPLE_NAME,
            split=split,
            question=record.question,
            reference=record.reference,
            images=images,
            modality=record.modality,
            answer_kind=record.answer_kind,  # type: ignore[arg-type]  # one of the kinds: `records` checks it
            aliases=record.aliases,
        )
