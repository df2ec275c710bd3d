"""Files and folders: write whole or not at all, lock, and read what a foreign folder holds without leaving it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml
from filelock import FileLock, Timeout

from medix.errors import ConfigError, DataError, MedixError

MAX_NODES = 1_000_000
"""Values of a YAML file, aliases written out; a few lines of aliases of aliases would make billions."""


def shipped(name: str) -> Path:
    """Return a folder that comes with the project: `recipes/medix` or `examples/sample_data`.

    In a checkout it lies beside the packages; a wheel has it inside of `medix` (see setup.py).
    """
    here = Path(__file__).resolve().parent
    return here.parent / name if (here.parent / "setup.py").is_file() else here / "shipped" / name


YAML_FAULTS = (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError, TypeError, ArithmeticError)
"""What yaml raises: its own errors, and others for `!!timestamp foo`, `!!bool foo`, `!!int ''`, a list as a key."""


def write_atomically(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The content goes to a new file beside `path`, which is then renamed over it. A link at `path` is replaced, not
    followed.

    Args:
        path: its folder is created if it is missing.
        content: text (UTF-8), bytes, or a function that writes the file whose path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        os.fchmod(handle, 0o644)
        if callable(content):
            os.close(handle)
            content(part)
        else:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_to_append(path: Path) -> IO[bytes]:
    """Open a file to add to it, created if it is missing. A link is refused: it may lead out of a foreign folder.

    Raises:
        OSError: the file is a link, or can not be written.
    """
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    return os.fdopen(handle, "ab", buffering=0)


@contextlib.contextmanager
def hold_folder(folder: Path, what: str = "run") -> Iterator[None]:
    """Be the only process at work in a folder. The lock ends with the process, also when it is killed.

    Args:
        folder: created if it is missing.
        what: what works there, for the lock's name and for the message.

    Raises:
        ConfigError: another process holds the folder.
    """
    lock = take_lock(folder / f"{what}.lock", f"Another {what} is at work in {folder}.")
    try:
        yield
    finally:
        lock.release()


def take_lock(path: Path, problem: str) -> FileLock:
    """Return a lock file that is held until its `release`, or until the process ends.

    Raises:
        ConfigError: another process holds it; the message is `problem`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(problem, "Wait for it or stop it, or name another place.") from None
    return lock


def open_inside(folder: Path, name: str | Path) -> IO[bytes]:
    """Open a regular file of a folder that came from elsewhere, for reading.

    Args:
        folder: the folder that the file has to lie in.
        name: path of the file, relative to the folder.

    Raises:
        DataError: the path leads out of the folder (`..`, an absolute path, a link), or is no regular file.
        OSError: the file is missing or can not be read.
    """
    path = folder / name
    # Unlike Path.resolve, an OSError in every release of Python if links lead in a circle.
    resolved = Path(os.path.realpath(path, strict=True))
    if not resolved.is_relative_to(os.path.realpath(folder)):
        raise DataError(f"{name} leads out of {folder}.", "Copy the file into the folder.")
    handle = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DataError(f"{path} is no regular file.", "Replace it by a file.")
    return os.fdopen(handle, "rb")


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML's own loader silently keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that a JSON or YAML file holds (YAML without tags).

    Raises:
        DataError: the file can not be read, is too deep, has a key twice, or holds something else.
        FileNotFoundError: there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix != ".json" and "*" in text and _expanded(yaml.compose(text, yaml.SafeLoader), {}) > MAX_NODES:
            raise ValueError(f"its aliases make more than {MAX_NODES} values of it")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, _EachKeyOnce)
    except FileNotFoundError:
        raise
    except (OSError, *YAML_FAULTS) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path} can not be read: {reason}", "Restore the file, or make it again.") from error
    if isinstance(content, dict):
        return content
    raise DataError(f"{path} holds a {type(content).__name__}, not a mapping.", "Restore the file, or make it again.")


def read_inside(folder: Path, name: str | Path) -> dict[str, Any]:
    """Return the mapping in a JSON or YAML file of a folder that came from elsewhere.

    Raises:
        DataError: it can not be read, or is a link that leads out of the folder.
        OSError: it is missing.
    """
    with open_inside(folder, name):
        return read_mapping(folder / name)


def mapping_inside(folder: Path | None, name: str | Path) -> dict[str, Any]:
    """Return what `read_inside` does, or an empty mapping for a file that is missing or can not be read."""
    try:
        return read_inside(folder, name) if folder else {}
    except (MedixError, OSError):
        return {}


def lookup(mapping: Any, dotted: str) -> Any:
    """Return the value at a dotted path in nested mappings, or None."""
    for part in dotted.split("."):
        mapping = mapping.get(part) if isinstance(mapping, Mapping) else None
    return mapping


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of everything in nested mappings that is no mapping itself."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def _expanded(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return how many values a YAML document holds once every alias is written out."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def last_lines(path: Path, count: int = 20, width: int = 300, start: int = 0) -> str:
    """Return the last lines of a growing log after byte `start`, each cut at `width` characters; empty if no log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - 64_000))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return "\n".join(line[:width] for line in lines[-count:])
