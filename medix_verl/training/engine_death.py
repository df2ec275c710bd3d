"""A rollout engine that has died: vLLM says so in the log, and veRL may not notice.

While responses are under way they fail and veRL ends by itself. Between two generations nothing fails: the next weight
sync waits for the engine for ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from medix_verl.training.log_tail import telling_lines

GRACE_S = 60.0
"""For veRL to end by itself, which says more."""
# Of vLLM 0.28's process that watches the engine. In other words it is left to the stall guard.
_SAID = b"engine core exited unexpectedly"


@dataclass
class EngineDeath:
    """Follows what an attempt adds to `log` from byte `offset` on."""

    log: Path
    offset: int
    _line: str = field(default="", init=False)
    _since: float = field(default=0.0, init=False)

    def overdue(self) -> str:
        """The line in which an engine's death was told, once `GRACE_S` has passed since; empty until then."""
        if not self._line:
            self._look()
        return self._line if self._line and time.monotonic() - self._since > GRACE_S else ""

    def _look(self) -> None:
        with self.log.open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self.offset += end
        for line in content[:end].splitlines():
            if _SAID in line:
                self._line = telling_lines([line.decode(errors="replace")])[0]
                self._since = time.monotonic()
                return
