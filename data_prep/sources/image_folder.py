"""A folder of images: with a table `metadata.csv` or `metadata.jsonl` (`file_name`, `question`, `answer`), or with one
sub-folder a class, whose name is the answer to `?question=`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from data_prep.images import EXTENSIONS
from data_prep.records import ImageFile, Record
from data_prep.sources import tables
from data_prep.sources.base import Place, Source, split_of, text, texts
from medix.errors import ConfigError

METADATA = ("metadata.jsonl", "metadata.csv")


class ImageFolderSource(Source):
    """Sub-folders named after a split are split; a class folder may stand in each."""

    name: ClassVar[str] = "image_folder"
    suffixes: ClassVar[frozenset[str]] = frozenset(f".{extension}" for extension in EXTENSIONS)

    def files(self) -> Iterator[tuple[Path, str]]:
        """The metadata tables; none where the folders' names are the labels."""
        for path in sorted(p for name in METADATA for p in self.root.rglob(name)):
            yield path, split_of(path.parent) or "train"

    def chunks(self, rows: int, limit: int | None) -> Iterator[tables.Chunk]:
        if any(True for _ in self.files()):
            yield from super().chunks(rows, limit)
        else:
            yield from tables.plan_rows(self.root / "images", "train", rows, self._labelled(limit))

    def _labelled(self, limit: int | None) -> Iterator[dict[str, Any]]:
        question = self.option("question", "")
        if not question:
            raise ConfigError(
                "metadata.csv or metadata.jsonl, or a question for the class folders",
                f"neither in {self.root}",
                f'write "{self.name}:PATH?question=What does this image show?"',
            )
        paths = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in self.suffixes and p.is_file())
        for path in paths[:limit]:
            relative = path.relative_to(self.root)
            yield {
                "id": str(relative),
                "file_name": str(relative),
                "question": question,
                "answer": relative.parent.name.replace("_", " "),
                "split": next((s for p in relative.parts[:-2] if (s := split_of(Path(p)))), "train"),
            }

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        folder = place.path.parent
        return Record(
            id=text(row, "id", str((folder / text(row, "file_name")).relative_to(self.root))),
            split=text(row, "split", place.split),
            question=text(row, "question", self.option("question", "") or None),
            answer=text(row, "answer"),
            images=(ImageFile(folder, text(row, "file_name")),),
            modality=text(row, "modality", self.option("modality", "")) or None,
            answer_kind=text(row, "answer_kind", "open"),
            aliases=texts(row, "aliases"),
        )
