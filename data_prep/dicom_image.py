"""DICOM pixels to RGB: photometric interpretation, rescale, window, one frame of many; the header stays behind."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any, Final

import numpy as np
from PIL import Image

from data_prep.records import DicomView, Unfit
from medix.errors import ConfigError

IDENTIFIERS: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "OtherPatientIDs",
    "OtherPatientNames", "AccessionNumber", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "InstitutionName", "InstitutionAddress", "StudyID", "DeviceSerialNumber",
)  # fmt: skip
IDENTIFIERS_DROPPED: Final = "dicom_identifiers_in_header_dropped"
BURNED_IN_POSSIBLE: Final = "dicom_burned_in_text_not_ruled_out"
_TEXT_PRONE: Final = frozenset({"US", "SC", "OT", "ES", "XC", "IVUS"})
"""Modalities whose devices write into the pixels, unless the header says that they did not."""
_TRANSFORMS: Final = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTSequence")
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_FAULTS: Final = (
    AttributeError, KeyError, ValueError, TypeError, RuntimeError, NotImplementedError, OSError, IndexError, EOFError,
    OverflowError, struct.error, AssertionError,
)  # fmt: skip
"""What pydicom and its decoders raise for damaged files; they document no narrower set."""

Pixels = np.ndarray[Any, np.dtype[Any]]


def is_dicom(data: bytes) -> bool:
    """Return whether the bytes carry DICOM's preamble."""
    return data[128:132] == b"DICM"


def read_header(data: bytes) -> Any:
    """Return the data set without its pixels.

    Raises:
        Unfit: it is no DICOM file, or a compressed one whose size can not be bounded.
    """
    pydicom = _pydicom()
    if not is_dicom(data):
        raise Unfit("bad_dicom", "no DICM preamble")
    if _DEFLATED in data:
        raise Unfit("bad_dicom", "deflated transfer syntax: its unpacked size is unknown")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    except (*_FAULTS, pydicom.errors.InvalidDicomError) as error:
        raise Unfit("bad_dicom", f"header: {type(error).__name__}") from error


def decode_dicom(data: bytes, max_pixels: int, view: DicomView) -> tuple[Image.Image, tuple[str, ...]]:
    """Return one frame as an 8-bit RGB image, and what was found beside the pixels, never a value of it.

    Raises:
        Unfit: damaged, too large, or declared to show identifying text.
    """
    header = read_header(data)
    try:
        width, height = int(header.Columns), int(header.Rows)
        frames = int(header.get("NumberOfFrames") or 1)
    except _FAULTS as error:
        raise Unfit("bad_dicom", "no pixels: rows or columns missing") from error
    if not (width > 0 and height > 0 and frames > 0):
        raise Unfit("bad_dicom", f"{width} x {height} pixels, {frames} frames")
    if width * height > max_pixels:
        raise Unfit("image_too_large", f"{width} x {height} pixels, the bound is {max_pixels}")
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        raise Unfit("burned_in_annotation", "BurnedInAnnotation is YES")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, _frame(view, frames), view), _notes(header)
    except _FAULTS as error:
        if isinstance(error, Unfit | TimeoutError):
            raise
        raise Unfit("bad_dicom", f"pixels: {type(error).__name__}") from error


def _notes(header: Any) -> tuple[str, ...]:
    found = []
    if any(str(header.get(name, "") or "").strip() for name in IDENTIFIERS):
        found.append(IDENTIFIERS_DROPPED)
    if header.get("Modality") in _TEXT_PRONE and str(header.get("BurnedInAnnotation", "")).upper() != "NO":
        found.append(BURNED_IN_POSSIBLE)
    return tuple(found)


def _frame(view: DicomView, frames: int) -> int:
    named = {"first": 0, "middle": frames // 2, "last": frames - 1}
    frame = named.get(view.frame, -1)
    if frame < 0 and view.frame.isdigit():
        frame = int(view.frame)
    if not 0 <= frame < frames:
        raise Unfit("bad_dicom", f"no frame {view.frame!r} among {frames}")
    return frame


def _decode(data: bytes, frame: int, view: DicomView) -> Image.Image:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    dataset = _pydicom().dcmread(io.BytesIO(data))
    _raise_groups(dataset, frame)
    pixels: Pixels = pixel_array(dataset, index=frame)  # colour spaces become RGB here
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        return Image.fromarray((pixels >> 8 * (pixels.dtype.itemsize - 1)).astype(np.uint8))  # 16 bits a sample to 8
    values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)
    if not np.isfinite(values).all() or float(dataset.get("RescaleSlope", 1)) == 0:
        raise Unfit("bad_dicom", "the rescale is not finite, or makes all values one")
    grey = _windowed(values, dataset, view)
    if kind == "MONOCHROME1":
        grey = 1.0 - grey
    return Image.fromarray(np.rint(grey * 255.0).astype(np.uint8)).convert("RGB")


def _raise_groups(dataset: Any, frame: int) -> None:
    """Bring rescale and window of an enhanced file, which stand in its functional groups, to where others have them."""
    own, shared = dataset.get("PerFrameFunctionalGroupsSequence"), dataset.get("SharedFunctionalGroupsSequence")
    if own and len(own) <= frame:
        raise Unfit("bad_dicom", f"no functional groups for frame {frame}")
    for group in [*(shared or [])[:1], *([own[frame]] if own else [])]:
        for sequence in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in list(group.get(sequence) or [])[:1]:
                for name in _TRANSFORMS:
                    if name in item:
                        setattr(dataset, name, item[name].value)


def _windowed(values: Pixels, dataset: Any, view: DicomView) -> Pixels:
    """Return [H, W] in the units of the rescale (HU for CT) in [0, 1], dark to bright before any inversion."""
    window = view.window or _stated_window(dataset)
    if window is not None:
        centre, width = window
        # DICOM PS3.3 C.11.2.1.2: the window's ends are half a value inside.
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    else:
        if "VOILUTSequence" in dataset:
            from pydicom.pixels import apply_voi

            values = np.asarray(apply_voi(values.astype(np.int32), dataset), dtype=np.float64)
        inside = values[values != _padding(dataset)]
        low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
    if high <= low:
        return np.where(values > low, 1.0, 0.0)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _stated_window(dataset: Any) -> tuple[float, float] | None:
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre is None or width is None:
        return None
    first = [float(v[0] if hasattr(v, "__len__") and not isinstance(v, str) else v) for v in (centre, width)]
    if not np.isfinite(first).all():
        raise Unfit("bad_dicom", "the window is not finite")
    return (first[0], first[1]) if first[1] >= 1 else None


def _padding(dataset: Any) -> float:
    """Return the value outside the image's field in the units of the rescale; NaN, equal to nothing, without one."""
    stated = dataset.get("PixelPaddingValue")
    if stated is None:
        return float("nan")
    return float(stated) * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ConfigError("pydicom, which reads DICOM, is not installed.", "pip install 'medix[dicom]'") from error
    return pydicom
