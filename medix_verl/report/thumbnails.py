"""Small pictures of the samples that a run saw, from its prepared parquet files, bounded in number and size."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from medix_verl.report.run_folder import RunFolder, lookup

MAX_TOTAL_BYTES: Final = 7_000_000
"""Of all thumbnails, as they stand in the page."""
MAX_SOURCE_PIXELS: Final = 100_000_000
"""Judged from the header, before a pixel is decoded."""
MAX_PER_SAMPLE: Final = 4
LARGE_PX, SMALL_PX, MANY = 224, 128, 600
FORMATS: Final = ("PNG", "JPEG")
"""What `medix prepare` writes."""


def thumbnails(run: RunFolder) -> dict[str, list[str]]:
    """Sample id -> data URIs of its images, for the samples in the run's rollouts; the last steps' come first."""
    wanted = dict.fromkeys(group.sample_id for group in reversed(run.groups) if group.sample_id)
    side = LARGE_PX if len(wanted) <= MANY else SMALL_PX
    found: dict[str, list[str]] = {}
    missing, spent, left_out = set(wanted), 0, 0
    for path in _data_files(run):
        for sample_id, encoded in sample_images(path, missing, run.notes):
            missing.discard(sample_id)
            uris = [uri for data in encoded[:MAX_PER_SAMPLE] if (uri := thumbnail(data, side))]
            size = sum(map(len, uris))
            if spent + size > MAX_TOTAL_BYTES:
                left_out += 1
            elif uris:
                found[sample_id], spent = uris, spent + size
        if not missing:
            break
    if left_out:
        run.notes.append(f"images of {left_out} samples are left out to keep the page small")
    return found


def thumbnail(data: bytes, side: int) -> str | None:
    """A data URI of at most `side` x `side` pixels, or None for what is no fit picture."""
    small = small_jpeg(data, side)
    return None if small is None else "data:image/jpeg;base64," + base64.b64encode(small).decode()


def small_jpeg(data: bytes, side: int) -> bytes | None:
    """The picture as JPEG of at most `side` x `side` pixels, or None for what is no fit picture."""
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


def _data_files(run: RunFolder) -> list[Path]:
    """The run's own data first, then the files its configuration names."""
    named: list[Any] = []
    for key in ("data.train_files", "data.val_files"):
        value = lookup(run.config, key)
        named += value if isinstance(value, list) else [value]
    files = [*sorted((run.path / "data").glob("*.parquet")), *(Path(str(name)) for name in named if name)]
    return list({path.resolve(): path for path in files if path.is_file()}.values())


def sample_images(path: Path, wanted: set[str], notes: list[str]) -> Iterator[tuple[str, list[bytes]]]:
    """(sample id, encoded images) of the wanted rows of a prepared parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64, columns=["images", "extra_info"]):
                ids = [(info or {}).get("sample_id") for info in batch.column("extra_info").to_pylist()]
                for row, sample_id in enumerate(ids):
                    if sample_id in wanted:
                        images = batch.column("images")[row].as_py() or []
                        yield sample_id, [image["bytes"] for image in images if image.get("bytes")]
    except (pa.ArrowException, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        notes.append(f"{path.name}: its images could not be read ({type(error).__name__})")
