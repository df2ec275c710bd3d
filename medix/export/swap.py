"""A folder takes its final name in one step, or not at all."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path

import psutil

from medix.errors import ConfigError
from medix.export.contract import RECORD

_AT_FDCWD = -100
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
        raise ConfigError("a new folder", f"{out}, which exists", "choose another --out, or add --overwrite")
    if out.is_symlink() or not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).is_file()):
        found = f"{out}, which is no folder that `medix export` wrote (it has no {RECORD})"
        raise ConfigError("an earlier export to overwrite", found, "remove it yourself, or choose another --out")


def part_of(out: Path) -> Path:
    """A new folder beside `out` to work in; removes what killed exports to the same place left."""
    for left in out.parent.glob(f"{out.name}.part-*"):
        match = re.fullmatch(re.escape(out.name) + r"\.part-(\d+)", left.name)
        if match and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1]))):
            shutil.rmtree(left)
    part = out.parent / f"{out.name}.part-{os.getpid()}"
    part.mkdir(parents=True)
    return part


def take_final_name(part: Path, out: Path) -> None:
    """Rename `part` to `out`; an earlier export there changes places with it at once and is then removed."""
    for path in (*part.rglob("*"), part):
        _sync(path)
    if out.exists():
        _exchange(part, out)
        shutil.rmtree(part)
    else:
        os.rename(part, out)
    _sync(out.parent)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = (ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other)))
    exchange = getattr(libc, "renameat2", None)
    if exchange is not None and exchange(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    # A system or file system without it: for a moment nothing stands at the name, but never anything half-done.
    aside = one.with_name(f"{one.name}.old")
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
