"""DICOM pixels to RGB: photometric interpretation, rescale, window, one frame of many; the header stays behind."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from data_prep.records import Unfit


@dataclass(frozen=True)
class DecodedDicom:
    """Pixels and notes; no header value."""

    image: Image.Image
    notes: tuple[str, ...]


def is_dicom(data: bytes) -> bool:
    """Whether the bytes carry DICOM's preamble."""
    return data[128:132] == b"DICM"


def decode_dicom(data: bytes, max_pixels: int) -> DecodedDicom:
    """To be written in this file's next version."""
    raise Unfit("bad_dicom", "DICOM is not read yet")
