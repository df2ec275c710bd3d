"""Verdicts by content: a bounded memory in front of a SQLite file that outlives the run.

Every verdict is committed as it arrives (WAL mode, no sync per commit), so a run that is killed repeats no judged call.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from medix.errors import ConfigError
from medix.scorer.types import Verdict

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdict (
    key BLOB PRIMARY KEY, correct INTEGER NOT NULL, raw TEXT NOT NULL, yes_probability REAL NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class CacheOptions:
    """An empty `path` keeps the cache in memory only. `max_entries` bounds the memory, `max_stored` the file."""

    path: str = ""
    max_entries: int = 100_000
    max_stored: int = 5_000_000


class VerdictCache:
    """Least recently used goes first from memory; the file keeps all up to `max_stored`, then takes no more.

    Raises:
        ConfigError: the file can not be opened as a cache.
    """

    def __init__(self, options: CacheOptions) -> None:
        self._max_entries, self._max_stored = options.max_entries, options.max_stored
        self._memory: OrderedDict[bytes, Verdict] = OrderedDict()
        self._file: sqlite3.Connection | None = None
        self._stored = 0
        if options.path:
            self._open(Path(options.path))

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Autocommit; a second process on the same file waits for its turn instead of failing.
            self._file = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute(_SCHEMA)
            self._stored = int(self._file.execute("SELECT count(*) FROM verdict").fetchone()[0])
        except sqlite3.Error as error:
            fix = "delete the file or name another in medix.scorer.cache.path"
            raise ConfigError(f"a verdict cache at {path}", str(error), fix) from error

    def __len__(self) -> int:
        return len(self._memory)

    def get(self, key: bytes) -> Verdict | None:
        """The verdict stored under `key`, marked as cached."""
        found = self._memory.get(key)
        if found is not None:
            self._memory.move_to_end(key)
            return found
        if self._file is None:
            return None
        query = "SELECT correct, raw, yes_probability FROM verdict WHERE key = ?"
        row = self._file.execute(query, (key,)).fetchone()
        if row is None:
            return None
        return self._remember(key, Verdict(bool(row[0]), row[1], row[2], cached=True, attempts=0))

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Keep a verdict; it is on its way to the disk when this returns."""
        cached = Verdict(verdict.correct, verdict.raw, verdict.yes_probability, cached=True, attempts=0)
        self._remember(key, cached)
        if self._file is not None and self._stored < self._max_stored:
            row = (key, int(verdict.correct), verdict.raw, verdict.yes_probability)
            self._stored += self._file.execute("INSERT OR IGNORE INTO verdict VALUES (?, ?, ?, ?)", row).rowcount

    def _remember(self, key: bytes, verdict: Verdict) -> Verdict:
        self._memory[key] = verdict
        if len(self._memory) > self._max_entries:
            self._memory.popitem(last=False)
        return verdict

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
