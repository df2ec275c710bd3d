"""A folder of DICOM files: questions from a table beside them, or such as their own headers answer.

The table is `metadata.csv` or `metadata.jsonl` as for `image_folder`. Without one, a file gives up to four rows:
modality, body part, view and side, each where the header states it. Row ids are made of the file's content, since
file names carry names and numbers of patients more often than not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

from data_prep.dicom_image import is_dicom, read_header
from data_prep.hashes import sha256
from data_prep.images import MAX_BYTES
from data_prep.records import DicomView, ImageFile, Record, Unfit
from data_prep.sources import tables
from data_prep.sources.base import Place, text
from data_prep.sources.image_folder import ImageFolderSource
from medix.errors import ConfigError
from medix.modality import MODALITIES

TAGS: Final[dict[str, str]] = {
    "CR": "X_RAY", "DX": "X_RAY", "RG": "X_RAY", "PX": "X_RAY", "IO": "X_RAY", "CT": "CT_SCAN", "MR": "MRI_SCAN",
    "US": "ULTRASOUND", "IVUS": "ULTRASOUND", "MG": "MAMMOGRAPHY", "PT": "PET_SCAN", "XA": "ANGIOGRAPHY",
    "RF": "FLUOROSCOPY", "OP": "FUNDUS_PHOTOGRAPHY", "OPT": "OCT_SCAN", "OCT": "OCT_SCAN", "IVOCT": "OCT_SCAN",
    "ES": "ENDOSCOPY", "SM": "MICROSCOPY", "GM": "MICROSCOPY", "XC": "CLINICAL_PHOTOGRAPHY", "ECG": "GRAPHICS",
}  # fmt: skip
"""DICOM modality -> tag; any other is OTHER."""
_SIDES: Final = {"L": "left", "R": "right", "B": "both"}
_VIEWS: Final = {
    "AP": "anteroposterior",
    "PA": "posteroanterior",
    "LL": "lateral",
    "RL": "lateral",
    "LATERAL": "lateral",
}
_SUFFIXES: Final = frozenset({"", ".dcm", ".dicom", ".ima"})


def modality_tag(header: Any) -> str:
    """One of the sixteen tags. Nuclear medicine is SPECT only where the image is a section."""
    stated = str(header.get("Modality", "")).upper()
    if stated == "NM":
        return "SPECT" if any("TOMO" in str(value).upper() for value in header.get("ImageType") or ()) else "OTHER"
    return TAGS.get(stated, "OTHER")


def _body_part(header: Any) -> str:
    return str(header.get("BodyPartExamined") or "").replace("_", " ").strip().lower()


def _side(header: Any) -> str:
    return _SIDES.get(str(header.get("ImageLaterality") or header.get("Laterality") or "").upper(), "")


def _view(header: Any) -> str:
    stated = str(header.get("ViewPosition") or "").upper().strip()
    return _VIEWS.get(stated, stated)


def _modality(header: Any) -> str:
    tag = modality_tag(header)
    return "" if tag == "OTHER" else MODALITIES[tag]


QUESTIONS: Final[dict[str, tuple[str, Callable[[Any], str]]]] = {
    "modality": ("What imaging modality is shown?", _modality),
    "body_part": ("Which body part is examined?", _body_part),
    "view": ("In which projection was this image taken?", _view),
    "side": ("Which side of the body is shown?", _side),
}
"""Kind -> question and the header's answer, empty where it states none."""


class DicomSource(ImageFolderSource):
    """Options: `frame` (first, middle, last or a number from 0), `window` (`centre,width`)."""

    name: ClassVar[str] = "dicom"

    @property
    def view(self) -> DicomView:
        stated = self.option("window", "")
        try:
            centre, width = (float(part) for part in stated.split(",")) if stated else (0.0, 0.0)
        except ValueError as error:
            raise ConfigError("window=CENTRE,WIDTH", repr(stated), "e.g. dicom:PATH?window=40,400") from error
        return DicomView(self.option("frame", "middle"), (centre, width) if stated else None)

    def chunks(self, rows: int, limit: int | None) -> Iterator[tables.Chunk]:
        if any(True for _ in self.files()):
            yield from super().chunks(rows, limit)
            return
        paths = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        asked = ({"file_name": str(p.relative_to(self.root)), "kind": kind} for p in paths for kind in QUESTIONS)
        limited = (row for number, row in enumerate(asked) if limit is None or number < limit)
        yield from tables.plan_rows(self.root / "headers", "train", rows, limited)

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        folder = place.path.parent
        image = ImageFile(folder, text(row, "file_name"), self.view)
        data = image.read(MAX_BYTES)
        kind = text(row, "kind", "")
        if not is_dicom(data):
            if kind in ("", "modality"):
                raise Unfit("bad_dicom", f"{image.name!r}: no DICM preamble")
            return None  # refused once, by its first question
        header = read_header(data)
        row_id = f"dcm-{sha256(data)[:16]}"
        modality = modality_tag(header)
        if not kind:
            row_id = text(row, "id", f"{row_id}-{place.line}")
            question, answer = text(row, "question"), text(row, "answer")
            return Record(row_id, text(row, "split", place.split), question, answer, (image,), modality)
        question, answer_of = QUESTIONS[kind]
        answer = answer_of(header)
        if not answer:
            return None
        return Record(f"{row_id}-{kind}", place.split, question, answer, (image,), modality)
