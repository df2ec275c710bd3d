"""What a source hands over: a record to be prepared, or a refusal that says why there is none."""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from medix.errors import DataError
from medix.files import open_inside

REASONS: Final[dict[str, str]] = {
    "unreadable_file": "a file of the source can not be opened or parsed",
    "wrong_columns": "a table lacks a column that its source has",
    "bad_json": "a line is not a JSON object",
    "not_utf8": "text is not UTF-8",
    "line_too_long": "a line is longer than the bound",
    "bad_field": "a field is missing, empty or of the wrong type",
    "bad_table_row": "a line of a text table has a stray quote; reading goes on at the next line",
    "unknown_split": "the row is of a part whose name is not known, see ?train=, ?val=, ?test= and ?skip=",
    "bad_modality": "a modality is not one of the sixteen tags",
    "no_answer": "the source holds no reference answer for the row",
    "unscorable_answer": "the reference answer does not earn 1.0 through the parser and the reward components",
    "duplicate_id": "an earlier row of the same source and split has the id",
    "duplicate_row": "an earlier row has the same question, answer and images",
    "contaminated": "the row is also in an evaluation set, see dedupe in the manifest",
    "missing_image": "an image file does not exist",
    "image_outside_folder": "an image path leaves the image folder",
    "empty_image": "an image holds no bytes",
    "unknown_image_format": "an image is of no format that is read here",
    "wrong_extension": "an image is of another format than its name says",
    "image_too_large": "an image has more pixels or bytes than the bound: a decompression bomb, or a mistake",
    "image_too_narrow": "an image is, or by a resize becomes, over 200 times as long as wide: Qwen-VL refuses it",
    "image_too_costly": "an image needs more time or memory to decode than it may have",
    "volume": "a NIfTI volume: write the slices that the questions are about as PNG",
    "damaged_image": "an image's header is fine, its pixels are not",
    "bad_dicom": "a DICOM file can not be read or has no pixels",
    "burned_in_annotation": "a DICOM header says that identifying text is burned into the pixels",
    "too_many_tokens": "the prompt is longer than --max-prompt-tokens",
}
"""Every reason a row can be quarantined for, with its meaning."""


@dataclass(frozen=True)
class DicomView:
    """Which of a DICOM file's pictures is wanted."""

    frame: str = "middle"
    """`first`, `middle`, `last`, or a number from 0."""
    window: tuple[float, float] | None = None
    """Centre and width in the units of the rescale (HU for CT); the header's own where None."""


DEFAULT_VIEW: Final = DicomView()


class Unfit(ValueError):
    """A row can not be prepared; `reason` is a key of `REASONS`, `detail` names no patient."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise KeyError(f"{reason!r} is not one of the reasons in data_prep.records")
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")

    def __reduce__(self) -> tuple[type[Unfit], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class ImageRef:
    """An image that a row names: bytes of its table, a file of a folder, or a member of a ZIP file that is left packed.

    Picklable, and cheap until `read` is called.
    """

    name: str = ""
    """Below its folder or in its ZIP file; empty for embedded bytes. Never holds patient data."""
    place: Path = Path()
    """The folder or the ZIP file."""
    data: bytes | None = None
    view: DicomView = DEFAULT_VIEW
    """Used where the bytes are DICOM."""
    packed: bool = False

    def read(self, max_bytes: int) -> bytes:
        """Return the encoded bytes.

        Raises:
            Unfit: they are missing, outside of the folder, over the bound, or packed in a way that has no bound.
        """
        if self.data is None:
            data = self._unpacked(max_bytes + 1) if self.packed else self._from_folder(max_bytes + 1)
        else:
            data = self.data
        if len(data) > max_bytes:
            raise Unfit("image_too_large", f"more than {max_bytes} bytes")
        return data

    def _from_folder(self, most: int) -> bytes:
        name = self.name[:80]
        path = self.place / self.name
        try:
            with open_inside(self.place, self.name) as file:
                return file.read(most)
        except DataError as error:
            linked = any(one.is_symlink() for one in (path, *path.parents))
            how = " by a link; name the folder it leads to with ?image_root=" if linked else ""
            raise Unfit("image_outside_folder", f"{name!r} leads out of the image folder{how}") from error
        except (OSError, ValueError, RuntimeError) as error:
            missing = isinstance(error, FileNotFoundError)
            why = "does not exist" if missing else f"can not be read: {type(error).__name__}"
            url = "; a web address is not fetched" if "://" in name else ""
            raise Unfit("missing_image", f"{name!r} {why}{url}") from error

    def _unpacked(self, most: int) -> bytes:
        where = f"{self.name[:80]!r} in {self.place.name}"
        try:
            info = (archive := _open_archive(self.place)).getinfo(self.name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # The others are unpacked whole before their size is known; the directory's figure is only a claim.
                raise Unfit("image_too_costly", f"{where} is packed by bzip2 or LZMA: pack it by deflate")
            with archive.open(info) as file:
                return file.read(most)
        except KeyError as error:
            raise Unfit("missing_image", f"no {where}") from error
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise Unfit("damaged_image", f"{where}: {type(error).__name__}") from error


@dataclass(frozen=True)
class Record:
    """One row as its source states it, for training and evaluation alike; nothing is rendered or checked yet."""

    id: str
    """The source's own; without one, `FILE-NUMBER`."""
    split: str
    """`train`, `val` or `test`, whatever word the source has for it."""
    question: str
    """Without options and passage."""
    reference: str
    """What the answer is held against; for a choice question the text of the right option."""
    images: tuple[ImageRef, ...] = ()
    modality: str | None = None
    answer_kind: str = "open"
    """`open`, `closed` (yes or no), `choice` or `report`."""
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """The options in their order, empty ones left out."""
    letter: str = ""
    """Of the right option: its place among `choices`, A for the first."""
    passage: str = ""
    """The text that the question is about."""
    group: str = ""
    """Patient or study. Rows of one group stay on one side of a split and are one statistical cluster; where it is
    empty the image, or else the passage, takes its place."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Columns that `?extra=` names; lists and mappings as JSON."""
    source: str | None = None
    """Where a collection names the origin of each row, that origin."""
    has_own_id: bool = True


@dataclass(frozen=True)
class Refusal:
    """One line of `quarantine.jsonl`."""

    source: str
    id: str
    """The row's id, or `FILE:LINE` where the row has none."""
    reason: str
    detail: str
    thumbnail: str = ""
    """Base64 JPEG for the report's contact sheet, where the image could be decoded."""
    rows: int = 1
    """Rows that it stands for: a stretch of a table may be refused as a whole."""

    def as_json(self) -> dict[str, Any]:
        named = {"source": self.source, "id": self.id, "reason": self.reason, "detail": self.detail}
        return named if self.rows == 1 else named | {"rows": self.rows}


@functools.lru_cache(maxsize=4)
def _open_archive(path: Path) -> zipfile.ZipFile:
    # Kept open: reading the directory of an archive of 200,000 images takes a second.
    return zipfile.ZipFile(path)
