"""What a source is: where its files are, which columns they have, and how one row becomes a record.

A source only plans and maps. Reading a table, line by line or group by group, is in `tables`; everything
that can be wrong with a row becomes a `Refusal`, never an exception that ends the run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.records import EmbeddedImage, ImageFile, ImageRef, Record, Refusal, Unfit
from data_prep.sources import tables
from data_prep.sources.splits import SPLITS
from medix.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """Where a row stands."""

    path: Path
    line: int
    """From 0."""
    split: str

    @property
    def fallback_id(self) -> str:
        return f"{self.path.stem}-{self.line}"


@dataclass(frozen=True)
class Source:
    """One data source, bound to a local folder or file. Frozen and picklable: workers get a copy."""

    name: ClassVar[str]
    licence: ClassVar[str] = "stated by nobody: yours to know"
    homepage: ClassVar[str] = ""
    columns: ClassVar[tuple[str, ...]] = ()
    """Columns without which a table is refused as a whole."""
    splits: ClassVar[Mapping[str, str]] = SPLITS
    """The source's split -> `train` or `val`; a split that is not named is left out."""
    evaluation_splits: ClassVar[tuple[str, ...] | None] = None
    """Splits that `--against` compares with; None for all."""

    root: Path
    revision: str = ""
    options: tuple[tuple[str, str], ...] = ()
    """Whatever follows `?` in the source's specification."""

    def files(self) -> Iterator[tuple[Path, str]]:
        """(table, split) pairs in a fixed order."""
        raise NotImplementedError

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        """Map one row, or None to leave it out (another language, say). Raises `Unfit`."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What the rows carry as their `data_source`; `?name=` changes it, so that two local sets can be told apart."""
        return self.option("name", self.name)

    @classmethod
    def default_root(cls, revision: str) -> Path:
        """Where the source is when its specification names no path."""
        raise ConfigError(f"a path for source {cls.name!r}", "none", f"write {cls.name}:PATH")

    def prepared_split(self, split: str, evaluation: bool) -> str | None:
        """`train` or `val` for a split of the source, None where it is left out; `?splits=` names the wanted ones."""
        split = split.lower()
        if "splits" in dict(self.options):
            wanted = self.option("splits", "").split(",")
            return (SPLITS.get(split, "train") if not evaluation else "val") if split in wanted else None
        if evaluation:
            return "val" if self.evaluation_splits is None or split in self.evaluation_splits else None
        return self.splits.get(split)

    def option(self, name: str, default: str) -> str:
        return dict(self.options).get(name, default)

    def chunks(self, rows: int, limit: int | None) -> Iterator[tables.Chunk]:
        """Plan of the reading: stretches of about `rows` rows, at most `limit` rows in all."""
        left = limit
        for path, split in self.files():
            for chunk in tables.plan(path, split, rows):
                if left is not None:
                    if left <= 0:
                        return
                    chunk = chunk.cut(left)
                    left -= chunk.rows
                yield chunk

    def read(self, chunk: tables.Chunk) -> Iterator[Record | Refusal]:
        """Records of one stretch; runs in a worker."""
        line = chunk.first - 1
        try:
            for line, row in tables.rows(chunk, self.columns):
                place = Place(chunk.path, line, chunk.split)
                if isinstance(row, Unfit):
                    yield self.refusal(f"{chunk.path.name}:{line}", row)
                    continue
                result = self._map(row, place)
                if result is not None:
                    yield result
        except Unfit as unfit:
            left = chunk.first + chunk.rows - (line + 1)
            yield dataclasses.replace(self.refusal(f"{chunk.path.name}:{line + 1}", unfit), rows=max(1, left))

    def _map(self, row: Mapping[str, Any], place: Place) -> Record | Refusal | None:
        row_id = str(row.get("id") or f"{place.path.name}:{place.line}")
        try:
            return self.record(row, place)
        except Unfit as unfit:
            return self.refusal(row_id, unfit)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            # A row of an unforeseen shape is the row's fault; the type of the error says enough.
            return self.refusal(row_id, Unfit("bad_field", f"{type(error).__name__}: {error}"[:160]))

    def refusal(self, row_id: str, unfit: Unfit) -> Refusal:
        return Refusal(self.label, row_id[:200], unfit.reason, unfit.detail)


def text(row: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A field as text. Numbers are text too (an answer may be 5); a missing or other value is `Unfit`."""
    value = row.get(name, default)
    if value is None or (isinstance(value, str) and not value.strip()):
        if default is not None:
            return default
        raise Unfit("bad_field", f"{name!r} is missing or empty")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unfit("bad_field", f"{name!r} is a {type(value).__name__}, not text")
    return str(value).strip()


def texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A field that holds a list of texts; absent is empty."""
    value = row.get(name)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split("|") if part.strip())
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unfit("bad_field", f"{name!r} is not a list of texts")
    return tuple(value)


def image_refs(value: Any, root: Path) -> tuple[ImageRef, ...]:
    """Images as tables hold them: one or a list, of relative paths, bytes, or `{bytes, path}`."""
    if value is None or value == "":
        return ()
    if isinstance(value, str) and "|" in value:
        value = value.split("|")
    return tuple(_image_ref(item, root) for item in (value if isinstance(value, list) else [value]))


def _image_ref(item: Any, root: Path) -> ImageRef:
    if isinstance(item, bytes):
        return EmbeddedImage(item)
    if isinstance(item, str):
        return ImageFile(root, item.strip())
    if isinstance(item, dict) and isinstance(item.get("bytes"), bytes):
        # The path beside embedded bytes is where they once came from: it says nothing on the format any more.
        return EmbeddedImage(item["bytes"])
    if isinstance(item, dict) and isinstance(item.get("path"), str):
        return ImageFile(root, item["path"])
    raise Unfit("bad_field", f"an image given as {type(item).__name__}")


def split_of(path: Path) -> str | None:
    """Split that a word of a file's name is, e.g. `train-00000-of-00005.parquet`; None where there is none."""
    return next((word for word in re.split(r"[^a-z]+", path.stem.lower()) if word in SPLITS), None)


def tables_under(root: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """(table, split) pairs of a file or a folder, by name; a file named after no split is `train`."""
    if root.is_file():
        return [(root, split_of(root) or "train")]
    found = sorted(p for p in root.rglob("*") if p.suffix in suffixes and p.is_file())
    if not found:
        raise ConfigError(
            f"a file ending in {' or '.join(suffixes)}", f"none under {root}", "correct the source's path"
        )
    return [(path, split_of(path) or "train") for path in found]
