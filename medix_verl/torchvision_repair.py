"""Makes PyPI's torchvision importable beside a CPU build of torch, in the running interpreter's environment.

PyPI's torchvision is built for CUDA. Beside a CPU torch its import fails, since two operators are never declared.
Only in that case, `python -m medix_verl.torchvision_repair` puts a small start-up file into the environment
that declares them just before torchvision is first imported, in every process of that environment: vLLM starts
sub-processes that import torchvision before any plugin could run. Neither torch nor torchvision is changed.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from medix.errors import ConfigError
from medix.processes import child_environment

HOOK_NAME = "_medix_declare_torchvision_operators"

HOOK = '''"""Start-up hook of medix_verl.torchvision_repair: declares two operators before torchvision is imported."""

import importlib.abc
import sys


class DeclareOperatorsFirst(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            torch._medix_torchvision_library = library  # the declaration lives as long as this object
        return None


sys.meta_path.insert(0, DeclareOperatorsFirst())
'''


def torchvision_error() -> str | None:
    """Why torchvision can not be imported in a fresh process of this environment, or None where it can."""
    command = [sys.executable, "-P", "-c", "import torchvision"]
    run = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=300)
    return None if run.returncode == 0 else run.stderr.strip().splitlines()[-1]


def repair(site_packages: Path) -> str:
    """Repair exactly the missing-operator fault, and say in one line what was done.

    Raises:
        ConfigError: torchvision fails to import for another reason, or still fails after the repair.
    """
    error = torchvision_error()
    if error is None:
        return "torchvision imports beside this torch: nothing to repair"
    if "torchvision::nms does not exist" not in error:
        raise ConfigError(
            f"torchvision fails to import: {error}.", "Install the torchvision that belongs to this torch."
        )
    (site_packages / f"{HOOK_NAME}.py").write_text(HOOK, encoding="utf-8")
    (site_packages / f"{HOOK_NAME}.pth").write_text(f"import {HOOK_NAME}\n", encoding="utf-8")
    error = torchvision_error()
    if error is not None:
        raise ConfigError(
            f"torchvision fails to import after the repair: {error}.", "Make .venv again with `make setup`."
        )
    return f"torchvision repaired beside the CPU torch: operators declared by {site_packages / HOOK_NAME}.pth"


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        raise SystemExit("This is the system's Python, not a virtual environment. Fix: run `make setup`.")
    print(repair(Path(sysconfig.get_paths()["purelib"])))
