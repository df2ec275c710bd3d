"""A checkout of the recipes with stand-ins for the commands that they call."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

FAKE_MEDIX = r"""#!/usr/bin/env bash
{ printf medix; printf ' %q' "$@"; echo; } >>"$CALLS"
case $1 in
  config)
    echo "medix: {data_dir: $PWD/data, prepare: {min_pixels: 1, max_pixels: 2}}"
    echo "data: {max_prompt_length: 9}" ;;
  serve)
    if [[ ${JUDGE_DIES:-} ]]; then exit 1; fi
    echo "export JUDGE_URL=http://127.0.0.1:4242 JUDGE_MODEL=served"
    echo "gpus $CUDA_VISIBLE_DEVICES" >>"$CALLS"
    trap 'echo "judge stopped" >>"$CALLS"; kill %1; exit 0' TERM
    sleep 60 & wait ;;
  eval) echo "gpus $CUDA_VISIBLE_DEVICES" >>"$CALLS" ;;
  train)
    if [[ ${TRAINS_LONG:-} ]]; then
      trap 'sleep 0.3; echo "train ended" >>"$CALLS"; kill %1; exit 130' TERM
      echo "train waits" >>"$CALLS"
      sleep 20 & wait
    fi ;;
esac
if [[ " $* " == *" ${FAILS:-none} "* ]]; then exit 2; fi
"""
FAKE_HF = r"""#!/usr/bin/env bash
echo "hf $*" >>"$CALLS"
[[ $2 != */nowhere ]] || { echo "404" >&2; exit 1; }
mkdir -p "hub/$2"
echo "hub/$2"
"""
FAKE_NVIDIA_SMI = '#!/usr/bin/env bash\nfor n in $(seq "$FAKE_GPUS"); do echo "GPU $n: Fake (UUID: x)"; done\n'
FAKE_PYTHON = f"""#!/usr/bin/env bash
if [[ $* == *ray.init* ]]; then [[ ${{CLUSTER_GPUS:-}} ]] && echo "$CLUSTER_GPUS"; exit; fi
exec {sys.executable} "$@"
"""


@dataclass
class Checkout:
    """The recipes alone, as in a fresh clone: no .venv. `commands` comes first on the PATH."""

    root: Path
    commands: Path

    def start(self, script: str, *overrides: str, **knobs: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.commands}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.root),
            "CALLS": str(self.root / "calls"),
            **knobs,
        }
        command = ["bash", f"recipes/medix/{script}", *overrides]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, script: str, *overrides: str, **knobs: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *overrides, **knobs)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def words(self) -> list[list[str]]:
        """The commands that were called, word by word."""
        calls = self.root / "calls"
        return [shlex.split(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def calls(self) -> list[str]:
        return [" ".join(words) for words in self.words()]

    def steps(self) -> list[str]:
        return [" ".join(words[:2]) for words in self.words()]

    def settings(self, command: str) -> dict[str, Any]:
        """The overrides of the last call of `medix COMMAND`, as Hydra reads them."""
        words = next(words for words in reversed(self.words()) if words[:2] == ["medix", command])
        return parse(words[words.index("--") + 1 :])

    def fake(self, name: str, text: str) -> None:
        (self.commands / name).write_text(text)
        (self.commands / name).chmod(0o755)


def parse(overrides: list[str]) -> dict[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return {parsed.key_or_group: parsed.value() for parsed in OverridesParser.create().parse_overrides(overrides)}
