"""Images: the header is judged before a pixel is decoded; fine files pass through untouched, others become RGB PNG."""

from __future__ import annotations

import io
import random
import re
import signal
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageChops, ImageFile, ImageOps, UnidentifiedImageError

from data_prep.dicom_image import decode_dicom, is_dicom
from data_prep.records import DEFAULT_VIEW, DicomView, Unfit
from data_prep.tokens import MAX_RATIO, PATCHES, fetched

READ_FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
KEPT_FORMATS: Final = ("PNG", "JPEG")
"""Formats whose bytes may go into a prepared file as they are."""
EXTENSIONS: Final = {
    "png": ("PNG",), "jpg": ("JPEG", "MPO"), "jpeg": ("JPEG", "MPO"), "gif": ("GIF",), "bmp": ("BMP",),
    "tif": ("TIFF",), "tiff": ("TIFF",), "webp": ("WEBP",), "jp2": ("JPEG2000",), "j2k": ("JPEG2000",),
    "ppm": ("PPM",), "pgm": ("PPM",), "dcm": ("DICOM",), "dicom": ("DICOM",),
}  # fmt: skip
_MAGIC: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
MAX_BYTES: Final = 256 * 2**20
MAX_SOURCE_PIXELS: Final = 100_000_000
"""More than any radiograph or mammogram (about 25 million); whole-slide images have to be cut into tiles first."""
MAX_SECONDS: Final = 20.0
"""For one image; a radiograph of 25 million pixels takes one."""
_FAULTS: Final = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, AttributeError, RuntimeError,
    AssertionError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's plug-ins raise for damaged files; they document no narrower set."""
THUMBNAIL_PX: Final = 112
_ORIENTATION: Final = 0x0112
_MAX_SCANS: Final = 100
"""Of a JPEG; a progressive one has about ten."""
_GREYS: Final = ((127, 127), (128, 128), (129, 129))
"""Extremes of a pixel that a JPEG's decoder may have filled."""


@dataclass(frozen=True)
class ImagePolicy:
    """Bounds on the area of a prepared image, in pixels; outside of them it is resized once, here."""

    min_pixels: int
    max_pixels: int


@dataclass(frozen=True)
class PreparedImage:
    """An encoded RGB image and what is known of it."""

    data: bytes
    width: int
    height: int
    action: str
    """`kept`, or what was done: `converted`, `first_frame`, `oriented`, `resized`, joined by `+`."""
    notes: tuple[str, ...]
    """What a reader of the manifest should know, e.g. that DICOM identifiers were dropped."""
    pixels: Image.Image
    """Decoded, RGB, for hashing; not stored."""


def prepare_image(data: bytes, name: str, policy: ImagePolicy, view: DicomView = DEFAULT_VIEW) -> PreparedImage:
    """Check, decode and, where needed, convert one image.

    Args:
        data: encoded bytes.
        name: its file name, to compare the extension with the content; may be empty.

    Raises:
        Unfit: for whatever is wrong with it, time and memory included.
    """
    if not data:
        raise Unfit("empty_image", name[:80] or "embedded image")
    try:
        with _time_limit(MAX_SECONDS):
            return _prepared(data, name, policy, view)
    except TimeoutError as error:
        raise Unfit("image_too_costly", f"{MAX_SECONDS:.0f} s were not enough to decode it") from error
    except MemoryError as error:
        raise Unfit("image_too_costly", "decoding it needs more memory than a worker has") from error


def _prepared(data: bytes, name: str, policy: ImagePolicy, view: DicomView) -> PreparedImage:
    if is_dicom(data):
        _check_extension("DICOM", name)
        image, notes = decode_dicom(data, MAX_SOURCE_PIXELS, view)
        _check_size(image.size)
        return _finish(image, None, policy, ["converted"], notes)
    if data[344:348] in (b"n+1\x00", b"ni1\x00") or name.lower().endswith((".nii", ".nii.gz")):
        raise Unfit("volume", "a NIfTI volume, not an image: write the slices that you ask about as PNG")
    image = _open(data, name)
    kept = image.format in KEPT_FORMATS and image.mode == "RGB"
    rgb, done = _decode(image)
    if image.format == "JPEG":
        _check_whole(data, image)
    kept = kept and not done
    return _finish(rgb, data if kept else None, policy, done if kept else ["converted", *done], ())


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`. Without effect outside of a main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header only."""
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb guard warns or raises at a size of its choosing; ours is checked below.
            warnings.simplefilter("ignore")
            if data.startswith(b"\x89PNG"):
                # Pillow checks the sums of some modes only while it decodes.
                Image.open(io.BytesIO(data), formats=("PNG",)).verify()
            image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
    except Image.DecompressionBombError as error:
        raise Unfit("image_too_large", str(error)[:120]) from error
    except UnidentifiedImageError as error:
        known = data.startswith(_MAGIC)
        raise Unfit("damaged_image" if known else "unknown_image_format", f"first bytes {data[:8].hex()}") from error
    except TimeoutError:
        raise
    except _FAULTS as error:
        raise Unfit("damaged_image", f"header: {type(error).__name__}") from error
    _check_extension(str(image.format), name)
    _check_size(image.size)
    if image.format == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS:
        # The decoder goes through all of them in one call, which no time limit ends.
        raise Unfit("image_too_costly", f"over {_MAX_SCANS} scans in a JPEG")
    return image


def _check_extension(found: str, name: str) -> None:
    extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if extension in EXTENSIONS and found not in EXTENSIONS[extension]:
        raise Unfit("wrong_extension", f"{found} content under the extension .{extension}")


def _check_size(size: tuple[int, int]) -> None:
    """Refuse an image that is too large, or too narrow now or after the resize in front of the image processor."""
    width, height = size
    if min(width, height) < 1:
        raise Unfit("damaged_image", f"{width} x {height} pixels")
    if width * height > MAX_SOURCE_PIXELS:
        raise Unfit("image_too_large", f"{width} x {height} pixels, the bound is {MAX_SOURCE_PIXELS}")
    if any(max(side) > MAX_RATIO * min(side) for side in (size, *(fetched(size, patch) for patch in PATCHES))):
        raise Unfit("image_too_narrow", f"{width} x {height} pixels")


def _decode(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return RGB pixels of the first frame, upright, and what had to be done for that beside the colours."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: cut-off images would pass for whole ones")
    done = []
    try:
        image.load()
        # Asked for after the bounds were checked: Pillow decodes a PNG to find its EXIF block.
        if int(getattr(image, "n_frames", 1)) > 1:
            done.append("first_frame")
        if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
            image = ImageOps.exif_transpose(image)
            done.append("oriented")
        return to_rgb(image), done
    except TimeoutError:
        raise
    except _FAULTS as error:
        raise Unfit("damaged_image", f"pixels: {type(error).__name__}: {str(error)[:80]}") from error


def shown_alike(data: bytes) -> bool:
    """Return whether every reader shows an image as this one does: upright, with no more than 8 bits a sample.

    A plain conversion to RGB makes 16 bits of grey white, and leaves an image lying that its EXIF block turns.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
            # A PNG would be decoded to find its EXIF block.
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(_ORIENTATION, 1) not in (0, 1)
            return not turned and not image.mode.startswith(("I", "F"))
    except (*_FAULTS, Image.DecompressionBombError):
        return True  # refused where it is decoded


def _check_whole(data: bytes, image: Image.Image) -> None:
    """Refuse a JPEG whose last scan ends early, or whose last scans are missing, although an end marker follows.

    The decoder fills what is missing. Whether it did is told by a second decoding with noise before the end marker:
    behind a whole scan it changes nothing. A filled baseline JPEG ends in a grey pixel; others are not decoded twice.
    """
    end = data.rfind(b"\xff\xd9")
    progressive = bool(image.info.get("progressive"))
    if progressive and not _all_scans(data):
        raise Unfit("damaged_image", "pixels: scans of a progressive JPEG are missing")
    rgb = image.convert("RGB")
    corner = rgb.crop((rgb.width - 1, rgb.height - 1, *rgb.size)).convert("L").getextrema()
    if end < 0 or not (progressive or image.mode not in ("RGB", "L") or corner in _GREYS):
        return
    noise = random.Random(0).randbytes(rgb.width * rgb.height // 4 + 64).replace(b"\xff", b"\x55")
    if b"\xff\xdd" in data:  # restart markers: the decoder takes noise up to the next one in their order
        restarts = re.findall(rb"\xff([\xd0-\xd7])", data[data.rfind(b"\xff\xda") : end])
        following = restarts[-1][0] + 1 if restarts else 0
        noise = b"".join(noise[:64] + bytes((0xFF, 0xD0 | (following + n) % 8)) for n in range(16))
    try:
        again = Image.open(io.BytesIO(data[:end] + noise + data[end:])).convert("RGB")
    except TimeoutError:
        raise
    except _FAULTS:
        return
    if ImageChops.difference(again, rgb).getbbox():
        raise Unfit("damaged_image", "pixels: the scan ends before the last row")


def _all_scans(data: bytes) -> bool:
    """Return whether the scans of a progressive JPEG hold every coefficient of each component to its last bit."""
    whole: dict[int, set[int]] = {}
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        size = int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xD9:
            break
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # inside of a scan
            place += 1 + (marker != 0xFF)
            continue
        segment = data[place + 4 : place + 2 + size]
        if marker == 0xC2:
            whole = {component: set() for component in segment[6::3]}
        elif marker == 0xDA and len(segment) >= 4:
            first, last, bits = segment[-3:]
            for component in segment[1:-3:2]:
                if not bits & 15:
                    whole.setdefault(component, set()).update(range(first, last + 1))
        place += 2 + size
    return all(len(found) >= 64 for found in whole.values())


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any mode as RGB: transparency over white, 16 and 32 bits scaled to the image's own range, not cut off."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return grey_to_rgb(np.asarray(image, dtype=np.float32))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def grey_to_rgb(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Image.Image:
    """Return [H, W] of any range as 8-bit RGB, the smallest finite value black and the largest white."""
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        raise Unfit("damaged_image", "pixels: no value is finite")
    low, high = float(finite.min()), float(finite.max())
    shown = np.clip(np.nan_to_num(pixels, nan=low, posinf=high, neginf=low), low, high)
    scaled = np.zeros_like(shown) if high <= low else (shown - low) * (255.0 / (high - low))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _finish(
    rgb: Image.Image, original: bytes | None, policy: ImagePolicy, done: list[str], notes: tuple[str, ...]
) -> PreparedImage:
    size = fit(rgb.size, policy)
    if size != rgb.size:
        _check_size(size)
        rgb, original, done = rgb.resize(size, Image.Resampling.LANCZOS), None, [*done, "resized"]
    if original is None:
        buffer = io.BytesIO()
        rgb.save(buffer, "PNG", compress_level=3)
        original = buffer.getvalue()
    return PreparedImage(original, *rgb.size, "+".join(done) or "kept", notes, rgb)


def fit(size: tuple[int, int], policy: ImagePolicy) -> tuple[int, int]:
    """Return the (width, height) within the policy's area, aspect kept as far as whole pixels allow."""
    width, height = size
    area = width * height
    if policy.min_pixels <= area <= policy.max_pixels:
        return size
    shrink = area > policy.max_pixels
    factor = ((policy.max_pixels if shrink else policy.min_pixels) / area) ** 0.5
    if shrink:
        return max(1, int(width * factor)), max(1, int(height * factor))
    # Rounded up, so that the area is not below the bound again.
    return -int(-width * factor // 1), -int(-height * factor // 1)


def thumbnail(image: Image.Image) -> bytes:
    """Return a small JPEG for the contact sheet."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
