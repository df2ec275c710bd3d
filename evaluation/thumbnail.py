"""Small JPEGs of the images that were asked about, for the report and for a judge that sees."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path

from medix.errors import DataError

MAX_PIXELS = 200_000_000
"""An image of more is refused before it is decoded."""
SIDE = 384


def keep_thumbnail(folder: Path, name: str, image: bytes) -> None:
    """Write `NAME.jpg` below `folder`, at most 384 px a side, unless it is there.

    Raises:
        DataError: the bytes are no image, or one too large to decode.
    """
    target = folder / f"{name}.jpg"
    if target.exists():
        return
    from PIL import Image, UnidentifiedImageError

    fix = "leave the item out of the task's files"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(image))
        if picture.width * picture.height > MAX_PIXELS:
            raise DataError(f"at most {MAX_PIXELS} pixels", f"{picture.width} x {picture.height}", fix)
        picture.draft("RGB", (SIDE, SIDE))
        small = picture.convert("RGB")
        small.thumbnail((SIDE, SIDE))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError("an image that can be decoded", f"{name}: {type(error).__name__}", fix) from error
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.{os.getpid()}"
    small.save(temporary, "JPEG", quality=80)
    temporary.replace(target)
