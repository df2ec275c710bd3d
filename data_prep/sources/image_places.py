"""Where the images of a table are: beside it, in a folder, in a ZIP file, or in the table itself."""

from __future__ import annotations

import base64
import binascii
import functools
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from data_prep.images import EXTENSIONS
from data_prep.records import DEFAULT_VIEW, DicomView, ImageRef, Unfit
from data_prep.sources.fields import literal
from medix.errors import ConfigError

SUFFIXES: Final = frozenset(f".{extension}" for extension in EXTENSIONS)
_TRIED: Final = 200
"""Names of images that are looked for; more would only cost time."""
_MOST_FOLDERS: Final = 60
_GUESSED: Final = ("", ".jpg", ".png", ".jpeg", ".dcm")
"""What is put behind a name that has no extension of an image."""


@dataclass(frozen=True)
class ImagePlace:
    """A folder or a ZIP file, and what stands before and behind the names of a table."""

    folder: Path
    archive: Path | None = None
    prefix: str = ""
    suffix: str = ""
    view: DicomView = DEFAULT_VIEW

    def refs(self, value: Any) -> tuple[ImageRef, ...]:
        """Return the images of a field: one or a list, of names, bytes, `{bytes, path}`, or base64.

        Raises:
            Unfit: the field holds something else.
        """
        return tuple(map(self._ref, _several(value)))

    def _ref(self, item: Any) -> ImageRef:
        if isinstance(item, dict):
            # The path beside embedded bytes is where they once came from: it says nothing on the format any more.
            item = item.get("bytes") or item.get("path") or item.get("url")
        if isinstance(item, bytes):
            return ImageRef(data=item, view=self.view)
        if not isinstance(item, str) or not item.strip():
            raise Unfit("bad_field", f"an image given as {type(item).__name__}")
        if (data := _encoded(item)) is not None:
            return ImageRef(data=data, view=self.view)
        name = f"{self.prefix}{item.strip()}{'' if Path(item.strip()).suffix.lower() in SUFFIXES else self.suffix}"
        return ImageRef(name, self.archive or self.folder, view=self.view, packed=self.archive is not None)


def _encoded(text: str) -> bytes | None:
    """Return the bytes of a `data:` URI, or of a long text in base64; None for a name."""
    head, _, body = text.partition(",") if text.startswith("data:") else ("", "", text)
    if head and not head.endswith(";base64"):
        raise Unfit("bad_field", "a data: URI that is not in base64")
    if not head and (len(text) < 256 or not re.fullmatch(r"[A-Za-z0-9+/\s]{64,}=*\s*", text[:256] + text[-4:])):
        return None
    try:
        return base64.b64decode(body, validate=False)
    except (binascii.Error, ValueError) as error:
        raise Unfit("damaged_image", "an image in base64 that cannot be decoded") from error


def find_place(
    values: Iterable[Any], table: Path, root: Path, named: Sequence[str] = (), stated: str = ""
) -> ImagePlace:
    """Return the place where most of the first images of a table are; beside the table if none is anywhere.

    Args:
        values: fields of the image column.
        root: the source's folder; nothing above it is looked at.
        named: folders and ZIP files (without `.zip`) that the source is known to use, tried first.
        stated: the folder that `?image_root=` names.

    Raises:
        ConfigError: the stated folder is missing, or the images are behind a link that leads out of the source.
    """
    if stated:
        folder = Path(stated).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"There is no folder {stated}, which ?image_root= names.", "Correct ?image_root=.")
        return _best(names(values), [ImagePlace(folder)])[0]
    top = root if root.is_dir() else root.parent
    wanted = names(values)
    best, hits = _best(wanted, list(_candidates(table.parent, top, named)))
    if wanted and not hits:
        linked = [path for path in _folders(table.parent, top) if path.is_symlink()]
        if linked and _best(wanted, [ImagePlace(path) for path in linked])[1]:
            raise ConfigError(
                f"The images of {table.name} are behind the link {linked[0].name}, which is not followed.",
                f"Name the folder it leads to: ?image_root={linked[0].resolve()}",
            )
    return best


def names(values: Iterable[Any]) -> list[str]:
    """Return the names of files that fields of an image column hold."""
    items = [item for value in values for item in _several(value)]
    items = [
        item.get("path") or item.get("url") if isinstance(item, dict) and not item.get("bytes") else item
        for item in items
    ]
    found = [item.strip() for item in items if isinstance(item, str) and len(item) < 256]
    return list(dict.fromkeys(filter(None, found)))[:_TRIED]


def any_there(wanted: Sequence[str], table: Path, root: Path, named: Sequence[str]) -> bool:
    """Return whether an image of one of these names is in a place where `find_place` looks."""
    top = root if root.is_dir() else root.parent
    return _best(wanted, list(_candidates(table.parent, top, named)))[1] > 0


def _several(value: Any) -> list[Any]:
    """Return the images of a field: a list, the text of one, or a text with `|` between them."""
    value = literal(value)
    return value if isinstance(value, list) else value.split("|") if isinstance(value, str) else [value]


def _candidates(folder: Path, top: Path, named: Sequence[str]) -> Iterator[ImagePlace]:
    for name in named:
        for parent in dict.fromkeys((folder, top)):
            if (parent / name).is_dir() and not (parent / name).is_symlink():
                yield ImagePlace(parent / name)
            if (parent / f"{name}.zip").is_file():
                yield from _in_archive(parent / f"{name}.zip")
    yield from (ImagePlace(path) for path in _folders(folder, top) if not path.is_symlink())
    for path in sorted(folder.glob("*.zip"))[:8]:
        yield from _in_archive(path)


def _folders(folder: Path, top: Path) -> list[Path]:
    """Return the table's folder, the source's, and what lies directly in them."""
    inside = [p for parent in dict.fromkeys((folder, top)) for p in sorted(parent.iterdir()) if p.is_dir()]
    return list(dict.fromkeys([folder, top, *inside]))[:_MOST_FOLDERS]


def _in_archive(path: Path) -> Iterator[ImagePlace]:
    """Yield the ZIP file and each folder at its top."""
    tops = {name.split("/", 1)[0] + "/" for name in members(path) if "/" in name}
    for prefix in ("", *sorted(tops)[:8]):
        yield ImagePlace(path.parent, path, prefix)


@functools.lru_cache(maxsize=8)
def members(path: Path) -> frozenset[str]:
    """Return the names in a ZIP file; none if it cannot be read."""
    if not path.is_file():  # zipfile would read a device without end
        return frozenset()
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return frozenset()


def _best(names: Sequence[str], places: Sequence[ImagePlace]) -> tuple[ImagePlace, int]:
    """Return the place that holds most of the names, the first of equals, and how many it holds."""
    best, most = places[0], 0
    for place in places:
        for suffix in _GUESSED:
            tried = replace(place, suffix=suffix)
            hits = sum(_holds(tried, name) for name in names)
            if hits > most:
                best, most = tried, hits
            if names and most == len(names):
                return best, most
    return best, most


def _holds(place: ImagePlace, name: str) -> bool:
    try:
        ref = place.refs(name)[0]
        if ref.packed:
            return ref.name in members(ref.place)
        return ref.data is None and (ref.place / ref.name).is_file()
    except (Unfit, OSError, ValueError):
        return False


def any_image(folder: Path, most: int = 20_000) -> str:
    """Return the name of an image below a folder, or an empty text; looks at no more than `most` files."""
    for number, path in enumerate(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES - {".dcm", ".dicom"}:
            return str(path.relative_to(folder))
        inside = members(path) if path.suffix.lower() == ".zip" and path.is_file() else ()
        if found := next((name for name in inside if Path(name).suffix.lower() in SUFFIXES), ""):
            return f"{path.relative_to(folder)}!{found}"
        if number >= most:
            break
    return ""
