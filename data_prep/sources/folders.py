"""Folders without a table: images in one folder a class, and DICOM files that answer questions themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from data_prep.dicom_image import is_dicom, read_header
from data_prep.fingerprints import sha256
from data_prep.images import MAX_BYTES
from data_prep.records import ImageRef, Unfit
from data_prep.sources.image_places import SUFFIXES
from data_prep.sources.splits import TRAIN, splits_in
from medix.errors import ConfigError
from medix.modality import MODALITIES

METADATA: Final = ("metadata.jsonl", "metadata.csv")
ROLES: Final = {"group": ("patient_id",)} | {
    name: (name,) for name in ("id", "image", "question", "answer", "split", "modality")
}
"""Role -> column of the rows that a folder is read as."""
TAGS: Final[dict[str, str]] = {
    "CR": "X_RAY", "DX": "X_RAY", "RG": "X_RAY", "PX": "X_RAY", "IO": "X_RAY", "CT": "CT_SCAN", "MR": "MRI_SCAN",
    "US": "ULTRASOUND", "IVUS": "ULTRASOUND", "MG": "MAMMOGRAPHY", "PT": "PET_SCAN", "XA": "ANGIOGRAPHY",
    "RF": "FLUOROSCOPY", "OP": "FUNDUS_PHOTOGRAPHY", "OPT": "OCT_SCAN", "OCT": "OCT_SCAN", "IVOCT": "OCT_SCAN",
    "ES": "ENDOSCOPY", "SM": "MICROSCOPY", "GM": "MICROSCOPY", "XC": "CLINICAL_PHOTOGRAPHY", "ECG": "GRAPHICS",
}  # fmt: skip
"""DICOM modality -> tag; any other is OTHER."""
_KINDS: Final = ("modality", "body_part", "view", "side")
_SIDES: Final = {"L": "left", "R": "right", "B": "both"}
_VIEWS: Final = {"AP": "anteroposterior", "PA": "posteroanterior"} | dict.fromkeys(("LL", "RL", "LATERAL"), "lateral")
_DICOM_SUFFIXES: Final = frozenset({"", ".dcm", ".dicom", ".ima"})


def modality_tag(header: Any) -> str:
    """Return one of the sixteen tags. Nuclear medicine is SPECT only where the image is a section."""
    stated = str(header.get("Modality", "")).upper()
    if stated == "NM":
        return "SPECT" if any("TOMO" in str(value).upper() for value in header.get("ImageType") or ()) else "OTHER"
    return TAGS.get(stated, "OTHER")


def _asked(kind: str, header: Any) -> tuple[str, str]:
    """Return a question and the header's answer, empty where it states none."""
    if kind == "modality":
        tag = modality_tag(header)
        return "What imaging modality is shown?", "" if tag == "OTHER" else MODALITIES[tag]
    if kind == "body_part":
        part = str(header.get("BodyPartExamined") or "")
        return "Which body part is examined?", part.replace("_", " ").strip().lower()
    if kind == "view":
        view = str(header.get("ViewPosition") or "").upper().strip()
        return "In which projection was this image taken?", _VIEWS.get(view, view)
    side = str(header.get("ImageLaterality") or header.get("Laterality") or "").upper()
    return "Which side of the body is shown?", _SIDES.get(side, "")


def has_metadata(root: Path) -> bool:
    """Return whether a folder holds a table of its own."""
    return root.is_file() or any(next(root.rglob(name), None) for name in METADATA)


def class_rows(root: Path, question: str) -> Iterator[Mapping[str, Any]]:
    """Yield a row for each image; the name of its folder is the answer, folders named after a part are its split.

    Raises:
        ConfigError: there is no question.
    """
    if not question:
        raise ConfigError(
            f"{root} has no metadata.csv or metadata.jsonl, and no question for its class folders.",
            'Write "image_folder:PATH?question=What does this image show?".',
        )
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        relative = path.relative_to(root)
        split = next((found for part in relative.parts[:-2] if (found := splits_in(part))), {TRAIN})
        answer = relative.parent.name.replace("_", " ")
        yield {
            "id": str(relative), "image": str(relative), "question": question, "answer": answer, "split": min(split)
        }  # fmt: skip


def dicom_rows(root: Path) -> Iterator[Mapping[str, Any]]:
    """Yield up to four rows for each DICOM file, to be asked by `ask_header` where the file is read."""
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _DICOM_SUFFIXES and p.is_file()):
        for kind in _KINDS:
            yield {"image": str(path.relative_to(root)), "kind": kind}


def ask_header(row: Mapping[str, Any], root: Path, number: int, options: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return a row of `dicom_rows` with its question and what the file's header answers, None where it states nothing.

    Row ids and patients are fingerprints of the content, since file names and headers carry names of patients.
    """
    kind = row.get("kind")
    if kind is None:
        return row
    image = ImageRef(str(row["image"]), root)
    data = image.read(MAX_BYTES)
    if not is_dicom(data):
        if kind == "modality":  # refused once, by its first question
            raise Unfit("bad_dicom", f"{image.name!r}: no DICM preamble")
        return None
    header = read_header(data)
    question, answer = _asked(kind, header)
    if not answer:
        return None
    patient = str(header.get("PatientID") or "").strip()
    return {
        "id": f"dcm-{sha256(data)[:16]}-{kind}",
        "image": row["image"],
        "question": question,
        "answer": answer,
        "modality": modality_tag(header),
        "patient_id": sha256(patient.encode())[:16] if patient else None,
    }
