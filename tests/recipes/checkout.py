"""A checkout of the recipes with stand-ins for the commands that their shell scripts call."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAKE_PYTHON = f"""#!/usr/bin/env bash
if [[ $* == *ray.init* ]]; then [[ ${{CLUSTER_GPUS:-}} ]] && echo "$CLUSTER_GPUS"; exit; fi
exec {sys.executable} "$@"
"""


@dataclass
class Checkout:
    """The recipes alone, as in a fresh clone: no .venv. `commands` comes first on the PATH."""

    root: Path
    commands: Path

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.commands}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.root),
            "CALLS": str(self.root / "calls"),
            **variables,
        }
        command = ["bash", f"recipes/medix/{script}", *arguments]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[str]:
        calls = self.root / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def fake(self, name: str, text: str) -> None:
        (self.commands / name).write_text(text)
        (self.commands / name).chmod(0o755)
