"""DICOM: photometric interpretation, rescale, window, frames, modality tags, and what becomes of identifiers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.dicom_image import BURNED_IN_POSSIBLE, IDENTIFIERS_DROPPED, decode_dicom
from data_prep.prepare import prepare
from data_prep.records import DicomView, Unfit
from data_prep.sources.folders import modality_tag

pydicom = pytest.importorskip("pydicom")
VIEW = DicomView()


def make(pixels: np.ndarray, **header: Any) -> bytes:
    """A DICOM file of [H, W], [F, H, W] or [H, W, 3] pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fixed"])
    dataset = Dataset()
    dataset.file_meta = meta
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    frames = pixels.shape[0] if pixels.ndim == 3 and not colour else 1
    height, width = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = height, width, 3 if colour else 1
    if frames > 1:
        dataset.NumberOfFrames = frames
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    dataset.Modality = "CT"
    dataset.PixelData = pixels.tobytes()
    for name, value in header.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def grey(data: bytes, view: DicomView = VIEW) -> list[int]:
    return list(np.asarray(decode_dicom(data, 10**6, view)[0])[0, :, 0].tolist())


HOUNSFIELD = np.array([[0, 924, 1064, 1204, 3000]], dtype=np.int16)
CT = {"RescaleSlope": 1, "RescaleIntercept": -1024}


SOFT = {"WindowCenter": 40, "WindowWidth": 280} | CT
GREYS: dict[str, tuple[np.ndarray, dict[str, Any], DicomView, list[int]]] = {
    # HU -1024, -100, 40, 180, 1976; window 40 +- 140 runs from -100 to 179: 0, 0, 140/279 * 255 = 128, 255, 255.
    "the header's window, on rescaled values": (HOUNSFIELD, SOFT, VIEW, [0, 0, 128, 255, 255]),
    # 1000 +- 1000: from 0 to 1999; HU 40 and 180 are 40/1999 * 255 = 5.1 and 23.0, 1976 is 252.1.
    "one's own window goes first": (HOUNSFIELD, SOFT, DicomView(window=(1000.0, 2000.0)), [0, 0, 5, 23, 252]),
    "no window: the range of the pixels, padding left out": (
        np.array([[-2000, 0, 50, 100]], dtype=np.int16), {"PixelPaddingValue": -2000}, VIEW, [0, 0, 128, 255]
    ),
    "MONOCHROME1 is inverted": (
        np.array([[0, 100, 200]], np.uint16), {"PhotometricInterpretation": "MONOCHROME1"}, VIEW, [255, 128, 0]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pixels", "header", "view", "shown"), GREYS.values(), ids=GREYS)
def test_grey_levels(pixels: np.ndarray, header: dict[str, Any], view: DicomView, shown: list[int]) -> None:
    assert grey(make(pixels, **header), view) == shown


@pytest.mark.parametrize(("frame", "value"), [("first", 0), ("middle", 51), ("last", 102), ("1", 51)])
def test_one_frame_of_many(frame: str, value: int) -> None:
    frames = np.stack([np.array([[level, 255]], dtype=np.uint8) for level in (0, 51, 102)])
    window = DicomView(frame, (128.0, 256.0))  # 0 to 255
    assert grey(make(frames), window) == [value, 255]


def test_colour_stays_colour() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[..., 0] = 200
    image, _ = decode_dicom(make(pixels, Modality="US", BurnedInAnnotation="NO"), 100, VIEW)
    assert np.asarray(image)[1, 1].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("data", "view", "reason"),
    [
        *((make(np.zeros((32, 32), np.uint16))[:cut], VIEW, "bad_dicom") for cut in (140, 300, -20)),
        (make(np.zeros((40, 40), np.uint8)), VIEW, "image_too_large"),
        (make(np.zeros((4, 4), np.uint8), BurnedInAnnotation="YES"), VIEW, "burned_in_annotation"),
        (make(np.zeros((2, 4, 4), np.uint8)), DicomView("7"), "no frame '7'"),
    ],
    ids=["cut at 140", "cut at 300", "cut at the end", "too many pixels", "burned-in text", "no such frame"],
)
def test_refused(data: bytes, view: DicomView, reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        decode_dicom(data, 1500, view)


def test_identifiers_are_noted_and_never_written(tmp_path: Path) -> None:
    header: dict[str, Any] = {"PatientName": "Sesame^Oscar", "PatientID": "ID-4711", "BodyPartExamined": "CHEST"}
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "Oscar.dcm").write_bytes(make(np.arange(4096, dtype=np.uint16).reshape(64, 64), **header))
    ultrasound = np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)
    (scans / "no_extension").write_bytes(make(ultrasound, Modality="US"))
    (scans / "readme.txt").write_text("not an image")
    found = prepare([f"dicom:{scans}"], tmp_path / "out", workers=0)
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    got = {(row["extra_info"]["question"], row["reward_model"]["ground_truth"]) for row in rows}
    assert got == {
        ("What imaging modality is shown?", "computed tomography"),
        ("Which body part is examined?", "chest"),
        ("What imaging modality is shown?", "ultrasound"),
    }
    assert found["splits"]["train"]["notes"] == {BURNED_IN_POSSIBLE: 1, IDENTIFIERS_DROPPED: 2}
    for path in (tmp_path / "out").iterdir():
        assert not any(secret in path.read_bytes() for secret in (b"Sesame", b"4711", b"Oscar")), path.name


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ({"Modality": "DX"}, "X_RAY"),
        ({"Modality": "NM", "ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY"]}, "OTHER"),
        ({"Modality": "NM", "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO"]}, "SPECT"),
        ({"Modality": "SEG"}, "OTHER"),
        ({}, "OTHER"),
    ],
)
def test_modality_tags(header: dict[str, Any], tag: str) -> None:
    assert modality_tag(header) == tag


def test_a_jsonl_row_may_name_a_dicom_file(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    root = write_set([{"images": ["images/a.dcm"]}])
    (root / "images" / "a.dcm").write_bytes(make(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    assert prepare([f"jsonl:{root}"], tmp_path / "out", workers=0)["splits"]["train"]["image_actions"] == {
        "converted": 1
    }


def enhanced(**groups: Any) -> bytes:
    """Two frames of [0, 100]; `shared` and `own` (one a frame) are their functional groups."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def group(values: dict[str, float]) -> Any:
        found, scale, window = Dataset(), Dataset(), Dataset()
        for name, value in values.items():
            setattr(scale if name.startswith("Rescale") else window, name, value)
        found.PixelValueTransformationSequence = Sequence([scale] if len(scale) else [])
        found.FrameVOILUTSequence = Sequence([window] if len(window) else [])
        return found

    header = {}
    if "shared" in groups:
        header["SharedFunctionalGroupsSequence"] = Sequence([group(groups["shared"])])
    if "own" in groups:
        header["PerFrameFunctionalGroupsSequence"] = Sequence([group(one) for one in groups["own"]])
    return make(np.array([[[0, 100]], [[0, 100]]], dtype=np.int16), **header)


def test_enhanced_files_state_rescale_and_window_in_their_groups() -> None:
    scale, window = {"RescaleSlope": 2, "RescaleIntercept": -100}, {"WindowCenter": 0, "WindowWidth": 401}
    # -100 and 100; from -200.5 to 199.5: 100.5/400 and 300.5/400 of 255 are 64.1 and 191.6
    assert grey(enhanced(shared=scale | window)) == [64, 192]
    own = [window, {"WindowCenter": 0, "WindowWidth": 1001}]  # from -500.5 to 499.5: 102.1 and 153.1
    assert grey(enhanced(shared=scale, own=own), DicomView("last")) == [102, 153]
    with pytest.raises(Unfit, match="functional groups"):
        grey(enhanced(own=[window]), DicomView("last"))


@pytest.mark.parametrize(
    "header",
    [
        {"RescaleSlope": "nan", "RescaleIntercept": 0}, {"RescaleSlope": "inf", "RescaleIntercept": 0},
        {"RescaleSlope": 0, "RescaleIntercept": 0}, {"RescaleSlope": 1, "RescaleIntercept": "nan"},
        {"WindowCenter": "inf", "WindowWidth": 100}, {"WindowCenter": 0, "WindowWidth": "nan"},
    ],
)  # fmt: skip
def test_a_rescale_or_window_that_is_no_number_is_refused(header: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = make(HOUNSFIELD, **header)
    with pytest.raises(Unfit, match="bad_dicom"):
        grey(data)


def test_a_deflated_file_is_refused_wherever_it_says_so() -> None:
    data = make(np.zeros((4, 4), np.uint8), PatientComments="x" * 6000)
    place = data.index(b"1.2.840.10008.1.2.1\x00")
    late = data[:place] + b"1.2.840.10008.1.2.1." + data[place + 20 :] + b"1.2.840.10008.1.2.1.99"
    with pytest.raises(Unfit, match="deflated"):
        decode_dicom(late, 10**6, VIEW)
