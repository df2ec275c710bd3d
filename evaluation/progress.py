"""A counter on the terminal; silent where stderr is none."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.status import Status


class Progress:
    """`with Progress("judge") as progress: progress.advance(17)`."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._status = Status(self.what, console=Console(stderr=True))
            self._status.start()
        return self

    def advance(self, done: int) -> None:
        if self._status is not None:
            self._status.update(f"{self.what}: {done}")

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
