"""Can veRL train on these parquet files?"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from medix.errors import DataError
from medix.preflight.check import Check
from medix.sample import count_image_slots

COLUMNS = ("data_source", "prompt", "images", "ability", "reward_model", "extra_info")
MAX_DECODED = 2000
"""Images decoded per file, evenly spread; `medix prepare` decoded every one of them already."""
MAX_PIXELS = 64_000_000


def check_parquet(path: str, max_prompt_length: int) -> str | Check:
    """Columns, image slots, decodable images and token counts of one file.

    Raises:
        DataError: naming the row.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    remedy = "make it with `medix prepare SOURCE --out DIR`"
    if not Path(path).is_file():
        raise DataError("a parquet file", f"none at {path}", remedy)
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError("a readable parquet file", f"{path}: {error}", remedy) from error
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise DataError(f"the columns {', '.join(COLUMNS)} in {path}", f"no {', '.join(missing)}", remedy)
    rows = file.metadata.num_rows
    if rows == 0:
        raise DataError(f"rows in {path}", "none", remedy)
    stride, index, images, uncounted = max(1, rows // MAX_DECODED), 0, 0, 0
    for batch in file.iter_batches(batch_size=256, columns=["prompt", "images", "extra_info"]):
        for row in batch.to_pylist():
            _check_row(path, index, row, max_prompt_length, decode=index % stride == 0)
            images += len(row["images"] or [])
            uncounted += not row["extra_info"].get("n_tokens")
            index += 1
    found = f"{path}: {rows} rows, {images} images"
    if uncounted:
        remedy = "prepare the file again with --model, which counts"
        return Check("data", "warn", f"{found}; the tokens of {uncounted} rows were not counted", remedy)
    return found


def _check_row(path: str, index: int, row: dict[str, Any], max_prompt_length: int, decode: bool) -> None:
    info, images = row["extra_info"] or {}, row["images"] or []
    where = f"row {index} ({info.get('sample_id', '?')}) of {path}"
    remedy = "prepare the file again: it sets such rows aside"
    if not info or not row["prompt"]:
        raise DataError(f"a prompt and extra_info in {where}", "null", remedy)
    slots = count_image_slots(row["prompt"])
    if slots != len(images):
        raise DataError(f"as many <image> slots as images in {where}", f"{slots} slots, {len(images)} images", remedy)
    tokens = info.get("n_tokens") or 0
    if tokens > max_prompt_length:
        raise DataError(f"at most {max_prompt_length} prompt tokens in {where}", f"{tokens}", remedy)
    if decode:
        for image in images:
            _check_image((image or {}).get("bytes") or b"", where, remedy)


def _check_image(content: bytes, where: str, remedy: str) -> None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"images of at most {MAX_PIXELS:,} pixels in {where}", f"{image.size}", remedy)
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"a decodable image in {where}", f"{type(error).__name__}: {error}", remedy) from error
