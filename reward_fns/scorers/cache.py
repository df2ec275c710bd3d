"""Verdicts by content: a bounded memory in front of a SQLite file that outlives the run.

Every verdict is committed as it arrives (WAL mode, no sync per commit), so a run that is killed repeats no judged call.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from pathlib import Path

from medix.errors import ConfigError
from medix.options import CountOrZero
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
    """An empty `path` keeps the cache in memory only. `max_entries` bounds that (0: none), `max_stored` the file."""

    path: str = ""
    max_entries: CountOrZero = 100_000
    max_stored: CountOrZero = 5_000_000


class VerdictCache:
    """Least recently used goes first from memory; the file keeps all up to `max_stored`, then takes no more.

    A file that fails later (full, locked) costs no verdict: the log says it once, and the memory serves until the
    file works again and gets what is missing.

    Raises:
        ConfigError: the file can not be opened as a cache.
    """

    REST_S = 30.0
    """How long a file that failed is left alone."""

    def __init__(self, options: CacheOptions) -> None:
        self._max_entries, self._max_stored = options.max_entries, options.max_stored
        self._memory: OrderedDict[bytes, Verdict] = OrderedDict()
        self._unsaved: deque[tuple[bytes, int, str, float]] = deque(maxlen=max(options.max_entries, 1))
        self._resting_until, self._has_said = 0.0, False
        self._file: sqlite3.Connection | None = None
        self._stored = 0
        if options.path:
            self._file, self._stored = _open(Path(options.path))

    def __len__(self) -> int:
        return len(self._memory)

    def get(self, key: bytes) -> Verdict | None:
        """Return the verdict stored under `key`, marked as cached."""
        found = self._memory.get(key)
        if found is not None:
            self._memory.move_to_end(key)
        elif self._file is not None and time.monotonic() >= self._resting_until:
            try:
                row = self._file.execute(_FIND, (key,)).fetchone()
            except sqlite3.Error as error:
                self._rest(error)
                return None
            if row is not None:
                found = Verdict(bool(row[0]), row[1], row[2], cached=True, attempts=0)
                self._remember(key, found)
        return found

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Keep a verdict; it is on its way to the disk when this returns."""
        self._remember(key, replace(verdict, latency_s=0.0, cached=True, coalesced=False, attempts=0))
        if self._file is None or self._stored >= self._max_stored:
            return
        raw = verdict.raw.encode(errors="replace").decode()  # a lone surrogate is no text to SQLite
        self._unsaved.append((key, int(verdict.correct), raw, verdict.yes_probability))
        if time.monotonic() >= self._resting_until:
            self._save(self._file)

    def _save(self, file: sqlite3.Connection) -> None:
        try:
            while self._unsaved:
                self._stored += file.execute(_KEEP, self._unsaved[0]).rowcount
                self._unsaved.popleft()
        except sqlite3.Error as error:
            self._rest(error)

    def _rest(self, error: sqlite3.Error) -> None:
        self._resting_until = time.monotonic() + self.REST_S
        if not self._has_said:
            self._has_said = True
            logger.warning(
                "The verdict cache in medix.scorer.cache.path failed (%s): verdicts stay in memory until "
                "it works again. A run that ends before that judges them anew when resumed. Free the disk or the lock.",
                error,
            )

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        self._memory[key] = verdict
        if len(self._memory) > self._max_entries:
            self._memory.popitem(last=False)

    def close(self) -> None:
        """Write what is missing and close the file."""
        if self._file is not None:
            self._save(self._file)
            self._file.close()
            self._file = None


def _open(path: Path) -> tuple[sqlite3.Connection, int]:
    """Return the open file and the number of verdicts in it.

    Raises:
        ConfigError: it is none.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Autocommit; a second process on the same file waits for its turn, but not long: all scoring waits with it.
        file = sqlite3.connect(path, isolation_level=None, timeout=1)
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")
        file.execute(_SCHEMA)
        file.execute(_FIND, (b"",))  # fails on a table of another form
        return file, int(file.execute("SELECT count(*) FROM verdict").fetchone()[0])
    except (sqlite3.Error, OSError) as error:
        fix = "Delete the file or name another in medix.scorer.cache.path."
        if "locked" in str(error):
            fix = "Another process is using it: wait for its end, or name another file in medix.scorer.cache.path."
        raise ConfigError(f"There can be no verdict cache at {path}: {error}.", fix) from error
