"""Local JSONL: one object a line.

`question` and `answer` have to be there; `id`, `images` (paths relative to the file's folder), `modality`,
`answer_kind`, `aliases` and `split` where they are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from data_prep.records import Record
from data_prep.sources.base import Place, Source, image_refs, tables_under, text, texts


class JsonlSource(Source):
    """A file, or a folder of files named after their split."""

    name: ClassVar[str] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)

    def files(self) -> Iterator[tuple[Path, str]]:
        yield from tables_under(self.root, self.suffixes)

    def image_root(self, table: Path) -> Path:
        """Folder that image paths are relative to and may not leave; `?image_root=` moves it."""
        return Path(self.option("image_root", str(table.parent)))

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        return local_record(row, place, self.image_root(place.path))


def local_record(row: Mapping[str, Any], place: Place, image_root: Path) -> Record:
    """A row of the local formats, which share their columns."""
    return Record(
        id=text(row, "id", place.fallback_id),
        split=text(row, "split", place.split),
        question=text(row, "question"),
        answer=text(row, "answer"),
        images=image_refs(row.get("images") or row.get("image"), image_root),
        modality=text(row, "modality", "") or None,
        answer_kind=text(row, "answer_kind", "open"),
        aliases=texts(row, "aliases"),
        source=text(row, "source", "") or None,
    )
