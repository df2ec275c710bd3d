"""Check that veRL can train on these parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from data_prep.row_schema import open_prepared
from medix.errors import ConfigError, DataError
from medix.sample import count_image_slots
from medix_verl.preflight.check import Check
from medix_verl.preflight.config import read_sizes

MAX_DECODED = 2000
"""Rows of a file whose images are decoded, in row groups spread evenly; `medix prepare` has decoded every one."""
MAX_PIXELS = 64_000_000
_AGAIN = "Prepare the file again: it sets such rows aside."


def check_parquet(path: str, max_prompt_length: int) -> str | Check:
    """Check columns and every row of one file, count its images, and decode those of a sample."""
    file = open_prepared(Path(path))
    rows = file.metadata.num_rows
    images, uncounted = 0, 0
    for index, row in _rows(file, _without_bytes(file)):
        _check_row(_name(path, index, row), row, max_prompt_length)
        images += len(row["images"] or [])
        uncounted += not row["extra_info"].get("n_tokens")
    found = f"{path}: {rows} rows, {images} images"
    groups = _sampled_groups(file)
    decoded = _decode(path, file, groups)
    if len(groups) < file.num_row_groups or decoded < rows:
        found += f"; the images of {decoded} rows decoded, from {len(groups)} of {file.num_row_groups} row groups"
    if uncounted:
        remedy = "Prepare the file again with --model, which counts."
        return Check("warn", f"{found}; the tokens of {uncounted} rows were not counted", remedy)
    return found


def check_train_rows(config: Any, paths: Sequence[str]) -> str | Check:
    """Check for rows of at least one batch: veRL leaves out what does not fill one, and divides by their number."""
    try:
        rows = sum(open_prepared(Path(path)).metadata.num_rows for path in paths)
    except DataError:
        return Check("warn", "not counted", "Mend the files first.")
    most = config.data.train_max_samples
    rows = min(rows, most) if most > 0 else rows
    sizes = read_sizes(config)
    if rows < sizes.batch:
        fits = sizes.fitting(rows)[0] <= rows
        fix = sizes.set_to(rows) if fits else f"Prepare {sizes.unit} rows or more."
        raise ConfigError(f"There are {rows} rows, fewer than one batch (data.train_batch_size={sizes.batch}).", fix)
    return f"{rows}, {rows // sizes.batch} batch(es) of {sizes.batch} an epoch"


def _without_bytes(file: Any) -> list[str]:
    """Return columns that say all of a row but its pixels; the empty path of each image keeps the list's length."""
    leaves = [file.schema.column(number).path for number in range(len(file.schema))]
    paths = [leaf for leaf in leaves if leaf.startswith("images.") and leaf.endswith(".path")]
    return ["prompt", "reward_model", "extra_info", *paths]


def _rows(file: Any, columns: Sequence[str], group: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (index, row) of a file, or of one of its row groups; few rows are in memory at once."""
    groups = range(file.num_row_groups) if group is None else [group]
    index = sum(file.metadata.row_group(before).num_rows for before in range(group or 0))
    for batch in file.iter_batches(batch_size=32, row_groups=list(groups), columns=list(columns)):
        for row in batch.to_pylist():
            yield index, row
            index += 1


def _sampled_groups(file: Any) -> list[int]:
    """Return all row groups, or so many, evenly spread, that they hold about `MAX_DECODED` rows."""
    groups = file.num_row_groups
    wanted = min(groups, max(1, MAX_DECODED * groups // file.metadata.num_rows))
    return sorted({number * groups // wanted for number in range(wanted)})


def _decode(path: str, file: Any, groups: Sequence[int]) -> int:
    """Decode the images of at most `MAX_DECODED` rows of these groups; return the number of rows."""
    rows = sum(file.metadata.row_group(group).num_rows for group in groups)
    stride, decoded = -(-rows // MAX_DECODED), 0
    for group in groups:
        for index, row in _rows(file, ["images", "extra_info"], group):
            if index % stride == 0:
                decoded += 1
                for image in row["images"] or []:
                    _check_image((image or {}).get("bytes") or b"", _name(path, index, row))
    return decoded


def _name(path: str, index: int, row: dict[str, Any]) -> str:
    return f"row {index} ({(row['extra_info'] or {}).get('sample_id', '?')}) of {path}"


def _check_row(where: str, row: dict[str, Any], max_prompt_length: int) -> None:
    info, images = row["extra_info"] or {}, row["images"] or []
    if not info or not row["prompt"]:
        raise DataError(f"There is no prompt or no extra_info in {where}.", _AGAIN)
    if not (row["reward_model"] or {}).get("ground_truth"):
        raise DataError(f"There is no reference answer (reward_model.ground_truth) in {where}.", _AGAIN)
    slots = count_image_slots(row["prompt"])
    if slots != len(images):
        raise DataError(f"There are {slots} <image> slots and {len(images)} images in {where}.", _AGAIN)
    tokens = info.get("n_tokens") or 0
    if tokens > max_prompt_length:
        raise DataError(f"There are {tokens} prompt tokens, over {max_prompt_length}, in {where}.", _AGAIN)


def _check_image(content: bytes, where: str) -> None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"An image of {image.size} has over {MAX_PIXELS:,} pixels in {where}.", _AGAIN)
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"An image can not be decoded ({error}) in {where}.", _AGAIN) from error
