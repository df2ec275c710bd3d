"""No image is lost in silence: columns that seem to hold images, and images beside a table, are read or asked about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from data_prep.sources import image_places
from data_prep.sources.columns import looks_like_image, plain
from data_prep.sources.fields import present
from data_prep.sources.reader import Source, Table
from medix.errors import ConfigError

_NAMED_LIKE_ONE: Final = re.compile(
    r"(source|input)?(image|img|picture|photo|scan|xray|dicom|figure|slide)s?"
    r"(b64|data|file)?(id|url|uri|link|path|file|name|filename|filepath|index|key|uid)?s?"
)


def check_table(source: Source, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a table with a column of images that is not read.

    Raises:
        ConfigError: it names the column.
    """
    if source.without_images or "image" in source.options or "image" in source.set.columns:
        return
    taken = table.columns.roles.get("image", ())
    for name in table.columns.unread:
        values = [row[name] for row in rows if present(row.get(name))]
        if not values:
            continue
        if not taken and _NAMED_LIKE_ONE.fullmatch(plain(name)):
            raise ConfigError(
                f"The column {name} of {table.path.name} is named like one of images, and none was taken for images.",
                f"Write ?image={name}, or ?image=none if it names none that you want.",
            )
        if taken and all(map(looks_like_image, values)) and _further(source, table, values, rows):
            read = "+".join(taken)
            raise ConfigError(
                f"The columns {', '.join((*taken, name))} of {table.path.name} hold different images.",
                f"Write ?image={read}+{name} for all of them, or ?image={read} to leave {name} out.",
            )


def _further(source: Source, table: Table, values: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a column holds images that the rows do not have already."""
    read = {Path(name).name for row in rows for name in image_places.names(table.columns.values(row, "image"))}
    names = image_places.names(values)
    if not names:
        return True
    return not {Path(name).name for name in names} <= read and image_places.any_there(
        names, table.path, source.root, source.set.image_folders
    )


def check_images(source: Source, found: Sequence[Table], some_row_has_one: bool) -> None:
    """Refuse a source whose rows have no image while images lie beside them.

    Raises:
        ConfigError: it names an image and the columns that are free.
    """
    if source.without_images or some_row_has_one:
        return
    beside = image_places.any_image(source.root if source.root.is_dir() else source.root.parent)
    if beside:
        unread = sorted({name for table in found for name in table.columns.unread})
        raise ConfigError(
            f"No row of {source.root} has an image, but there are images beside it, such as {beside}.",
            f"Name their column with ?image=COLUMN out of: {', '.join(unread) or 'none'}; or write ?text_only=true.",
        )
