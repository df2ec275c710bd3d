"""A folder takes its final name in one step, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from medix.errors import ConfigError
from medix_verl.export.contract import RECORD

LOCK = ".lock"
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def refuse_target(out: Path, checkpoint: Path, overwrite: bool) -> None:
    """Whether `out` may be written.

    Raises:
        ConfigError: something stands there that is not to be replaced, or it lies in the checkpoint or around it.
    """
    inside = out == checkpoint or checkpoint in out.parents or out in checkpoint.parents
    if inside:
        raise ConfigError("a folder outside of the checkpoint", str(out), "choose another --out")
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise _exists(out)
    if out.is_symlink() or not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).is_file()):
        found = f"{out}, which is no folder that `medix export` wrote (it has no {RECORD})"
        raise ConfigError("an earlier export to overwrite", found, "remove it yourself, or choose another --out")


@contextlib.contextmanager
def part_beside(out: Path) -> Iterator[Path]:
    """A new folder beside `out` to work in; gone at the end unless it took its final name.

    It holds a lock, which the kernel lets go of when its process ends in whatever way, on another host of a shared
    disk too: so what a killed export left is known, and removed, and one that is at work is left alone.
    """
    _remove_what_was_left(out)
    # Not the process id: hosts that share a disk do not share these.
    part = out.parent / f"{out.name}.part-{secrets.token_hex(4)}"
    part.mkdir(parents=True)
    try:
        with (part / LOCK).open("w") as lock:
            with contextlib.suppress(OSError):  # A file system without locks: nobody can take it for left then either.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_what_was_left(out: Path) -> None:
    for left in out.parent.glob(f"{glob.escape(out.name)}.part-*"):
        if re.fullmatch(r"[0-9a-f]{8}", left.name.removeprefix(f"{out.name}.part-")):
            # Whatever cannot be opened, locked or removed is not ours to remove, or not now.
            with contextlib.suppress(OSError), (left / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)


def take_final_name(part: Path, out: Path, overwrite: bool) -> None:
    """Rename `part` to `out`, with `overwrite` in exchange for an earlier export, which is then removed.

    Raises:
        ConfigError: something came to stand at `out` meanwhile.
    """
    (part / LOCK).unlink(missing_ok=True)
    for path in (*part.rglob("*"), part):
        _sync(path)
    if overwrite and out.exists():
        shutil.rmtree(_exchange(part, out))
    else:
        _rename_to_new(part, out)
    _sync(out.parent)


def _rename_to_new(part: Path, out: Path) -> None:
    try:
        if not _renameat2(part, out, _RENAME_NOREPLACE):
            os.rename(part, out)  # of a folder: replaces an empty folder at most
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise _exists(out) from error
        raise


def _exchange(part: Path, out: Path) -> Path:
    """Where the earlier export stands afterwards."""
    if _renameat2(part, out, _RENAME_EXCHANGE):
        return part
    # A system or file system without it: for a moment nothing stands at the name, but never anything half-done.
    aside = part.with_name(f"{part.name}.old")
    os.rename(out, aside)
    try:
        os.rename(part, out)
    except BaseException:
        os.rename(aside, out)
        raise
    return aside


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """False where the system or the file system does not know the call or its flag."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))


def _exists(out: Path) -> ConfigError:
    return ConfigError("a new folder", f"{out}, which exists", "choose another --out, or add --overwrite")


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():  # FUSE and SMB know no sync of a folder, and what is in it was synced by then.
            raise
