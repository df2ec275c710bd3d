"""Small pictures of the samples that a run saw, from its prepared parquet files, bounded in number and size."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from medix.files import lookup
from medix_verl.report.run_folder import RunFolder

MAX_IMAGE_BYTES: Final = 7_000_000
"""Of all thumbnails."""
MAX_SOURCE_PIXELS: Final = 100_000_000
"""Judged from the header, before a pixel is decoded."""
MAX_PER_SAMPLE: Final = 4
SIDES: Final = ((150, 448), (600, 224), (math.inf, 128))
"""Up to so many samples, thumbnails of so many pixels."""
FORMATS: Final = ("PNG", "JPEG")
"""What `medix prepare` writes."""


def thumbnails(run: RunFolder, data: Path | None = None) -> dict[str, list[str]]:
    """Return sample id -> data URIs of its images, for the samples in the run's rollouts; the last steps come first.

    Args:
        data: a folder of prepared parquet files beside those inside of the run's folder.
    """
    wanted = dict.fromkeys(group.sample_id for group in reversed(run.groups) if group.sample_id)
    side = next(pixels for most, pixels in SIDES if len(wanted) <= most)
    found: dict[str, list[str]] = {}
    missing, spent, left_out = set(wanted), 0, 0
    for path in _data_files(run, data):
        for sample_id, encoded in sample_images(path, missing, run.notes):
            missing.discard(sample_id)
            uris = [uri for content in encoded[:MAX_PER_SAMPLE] if (uri := thumbnail(content, side))]
            size = sum(map(len, uris))
            if spent + size > MAX_IMAGE_BYTES:
                left_out += 1
            elif uris:
                found[sample_id], spent = uris, spent + size
    if left_out:
        run.notes.append(f"images of {left_out} samples are left out to keep the page small")
    return found


def thumbnail(data: bytes, side: int) -> str | None:
    """Return a data URI of at most `side` x `side` pixels, or None if the picture can not be shown."""
    small = small_jpeg(data, side)
    return None if small is None else "data:image/jpeg;base64," + base64.b64encode(small).decode()


def small_jpeg(data: bytes, side: int) -> bytes | None:
    """Return the picture as JPEG of at most `side` x `side` pixels, or None if it is too large or damaged."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_SOURCE_PIXELS:
            return None
        image.draft("RGB", (side, side))
        small = image.convert("RGB")
        small.thumbnail((side, side))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _data_files(run: RunFolder, data: Path | None) -> list[Path]:
    """Return the parquet files inside of the run's folder, then those of `data`.

    A configuration may come from elsewhere: the files that it names outside of the run's folder are not opened.
    """
    named: list[Any] = []
    for key in ("data.train_files", "data.val_files"):
        value = lookup(run.config, key)
        named += value if isinstance(value, list) else [value]
    own = run.path.resolve()
    given = sorted(data.glob("*.parquet")) if data else []
    asked = [*sorted((run.path / "data").glob("*.parquet")), *(Path(str(name)) for name in named if name)]
    asked = [path for path in asked if path.is_file()]
    inside = [path for path in asked if path.resolve().is_relative_to(own)]
    if len(inside) < len(asked) and not given:
        run.notes.append("pictures of data outside of the run's folder are not shown; --data FOLDER adds them")
    return list({path.resolve(): path for path in (*inside, *given)}.values())


def sample_images(path: Path, wanted: Container[str], notes: list[str]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield (sample id, encoded images) of the wanted rows of a prepared parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64, columns=["images", "extra_info"]):
                ids = [str((info or {}).get("sample_id")) for info in batch.column("extra_info").to_pylist()]
                for row, sample_id in enumerate(ids):
                    if sample_id in wanted:
                        images = batch.column("images")[row].as_py() or []
                        yield sample_id, [image["bytes"] for image in images if image.get("bytes")]
    except (pa.ArrowException, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        notes.append(f"{path.name}: its images could not be read ({type(error).__name__})")
