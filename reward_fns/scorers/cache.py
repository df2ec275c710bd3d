"""Verdicts by content in SQLite: in a file that outlives the run, or in memory.

Every verdict is committed as it arrives (WAL mode, no sync per commit), so a run that is killed repeats no judged call.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from medix.errors import ConfigError
from medix.options import Count
from reward_fns.scorers.types import Verdict

logger = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdict (
    key BLOB PRIMARY KEY, correct INTEGER NOT NULL, raw TEXT NOT NULL, yes_probability REAL NOT NULL
) WITHOUT ROWID
"""
_FIND = "SELECT correct, raw, yes_probability FROM verdict WHERE key = ?"
_KEEP = "INSERT OR IGNORE INTO verdict VALUES (?, ?, ?, ?)"


@dataclass(frozen=True)
class CacheOptions:
    """An empty `path` keeps the verdicts in memory, some 250 bytes each. At `max_entries` no more are taken."""

    path: str = ""
    max_entries: Count = 1_000_000


class VerdictCache:
    """A file that fails later (full, locked) costs no verdict: the log says so once, and the memory serves meanwhile.

    Raises:
        ConfigError: the file can not be opened as a cache.
    """

    REST_S = 30.0
    """How long a file that could not be written is left alone."""

    def __init__(self, options: CacheOptions) -> None:
        self._max_entries = options.max_entries
        self._unsaved: dict[bytes, tuple[int, str, float]] = {}
        self._rest_until = 0.0
        self._has_said = False
        path = options.path or ":memory:"
        try:
            if options.path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Autocommit; a second process on the same file waits for its turn, but not long: all scoring waits with it.
            self._file = sqlite3.connect(path, isolation_level=None, timeout=1)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute(_SCHEMA)
            self._file.execute(_FIND, (b"",))  # fails on a table of another form
            self._stored = int(self._file.execute("SELECT count(*) FROM verdict").fetchone()[0])
        except (sqlite3.Error, OSError) as error:
            first = "Delete the file"
            if "locked" in str(error):
                first = "Another process is using it: wait for its end"
            fix = f"{first}, or name another in medix.scorer.cache.path."
            raise ConfigError(f"There can be no verdict cache at {path}: {error}.", fix) from error

    def __len__(self) -> int:
        return self._stored + len(self._unsaved)

    def get(self, key: bytes) -> Verdict | None:
        """Return the verdict stored under `key`, marked as cached."""
        row = self._unsaved.get(key)
        if row is None:
            try:
                row = self._file.execute(_FIND, (key,)).fetchone()
            except sqlite3.Error as error:
                self._say_once(error)
        return None if row is None else Verdict(bool(row[0]), row[1], row[2], cached=True, attempts=0)

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Keep a verdict; it is on its way to the disk when this returns."""
        if len(self) >= self._max_entries:
            return
        raw = verdict.raw.encode(errors="replace").decode()  # a lone surrogate is no text to SQLite
        self._unsaved[key] = (int(verdict.correct), raw, verdict.yes_probability)
        if time.monotonic() >= self._rest_until:
            self._save()

    def _save(self) -> None:
        try:
            for key, row in list(self._unsaved.items()):
                self._stored += self._file.execute(_KEEP, (key, *row)).rowcount
                del self._unsaved[key]
        except sqlite3.Error as error:
            self._rest_until = time.monotonic() + self.REST_S
            self._say_once(error)

    def _say_once(self, error: sqlite3.Error) -> None:
        if not self._has_said:
            self._has_said = True
            logger.warning(
                "The verdict cache in medix.scorer.cache.path failed (%s): verdicts stay in memory meanwhile; a run "
                "that ends before it works again judges them anew when resumed. Free the disk or the lock.",
                error,
            )

    def close(self) -> None:
        """Write what is missing and close the file."""
        self._save()
        self._file.close()
