"""What the page carries in itself: the rollouts, packed a step at a time, and small pictures of their samples.

A step's texts are unpacked by the browser when one of its groups is looked at, so that the page opens at once.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from medix_verl.report.rollouts import Group
from medix_verl.report.run_folder import RunFolder, lookup

MAX_PACKED_BYTES: Final = 22_000_000
"""Of all packed texts and thumbnails, as they stand in the page: with the rest it stays under 25 MB."""
MAX_IMAGE_BYTES: Final = 7_000_000
"""Of all thumbnails."""
MAX_SOURCE_PIXELS: Final = 100_000_000
"""Judged from the header, before a pixel is decoded."""
MAX_PER_SAMPLE: Final = 4
SIDES: Final = ((150, 448), (600, 224), (math.inf, 128))
"""Up to so many samples, thumbnails of so many pixels."""
FORMATS: Final = ("PNG", "JPEG")
"""What `medix prepare` writes."""


def pack_rollouts(run: RunFolder, images: dict[str, list[str]]) -> tuple[str, dict[int, str]]:
    """Pack what the rollout browser needs; if there are too many texts, an even choice of steps keeps them.

    Returns:
        The packed index of all groups, and step -> packed {key of a group: [response, ...]}.
    """
    by_step: dict[int, list[Group]] = {}
    for group in run.groups:
        by_step.setdefault(group.step, []).append(group)
    chunks, spent = {}, sum(len(uri) for uris in images.values() for uri in uris)
    for step in spread_out(list(by_step)):
        packed = pack({group.key: [asdict(response) for response in group.responses] for group in by_step[step]})
        if spent + len(packed) <= MAX_PACKED_BYTES:
            chunks[step], spent = packed, spent + len(packed)
    if len(chunks) < len(by_step):
        run.notes.append(
            f"the texts of {len(chunks)} out of {len(by_step)} steps are in this page, to keep it small; "
            "all are in rollouts/scored.jsonl"
        )
    return pack([_outline(group, group.step in chunks) for group in run.groups]), dict(sorted(chunks.items()))


def pack(content: object) -> str:
    """Return base64 of gzipped JSON; the same content always gives the same text."""
    return pack_text(json.dumps(content, separators=(",", ":")))


def pack_text(text: str) -> str:
    """Return base64 of a gzipped text, which the browser unpacks by itself."""
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def spread_out(steps: list[int]) -> list[int]:
    """Return the steps in an order whose every beginning is spread over the run: last, first, middle, quarters ..."""
    order = dict.fromkeys([*steps[-1:], *steps[:1]])
    parts = 2
    while len(order) < len(steps):
        order |= dict.fromkeys(steps[len(steps) * i // parts] for i in range(1, parts))
        parts *= 2
    return list(order)


def _outline(group: Group, is_kept: bool) -> dict[str, Any]:
    """Return what the list of groups shows and is filtered by."""
    flags = sorted(set().union(*(group.flags(response) for response in group.responses)))
    return {
        "key": group.key,
        "step": group.step,
        "training": group.is_training,
        "id": group.sample_id,
        "question": group.question,
        "reference": group.reference,
        "modality": group.modality,
        "size": len(group.responses),
        "mean": round(group.mean, 4),
        "std": round(group.std, 4),
        "flags": [*flags, *(["no_spread"] if group.no_spread else [])],
        "kept": is_kept,
    }


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


def sample_images(path: Path, wanted: Iterable[str], notes: list[str]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield (sample id, encoded images) of the wanted rows of a prepared parquet file."""
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
