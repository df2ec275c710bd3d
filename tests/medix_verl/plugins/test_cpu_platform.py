"""The CPU platform is registered when it is asked for, and only then. Each case is a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # each process imports torch and veRL

LOOK = """
import json, torch
import medix_verl.plugins
import verl
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.plugin.platform import get_platform
platform = get_platform()
found = {"device": platform.device_name, "registered": "cpu" in str(vars(PlatformRegistry))}
found["wrapped"] = torch.distributed.init_process_group.__module__.startswith("medix")
"""
LOOK_CPU = """
import importlib.metadata, os
from medix_verl.plugins import cpu_platform
wrapped = torch.distributed.init_process_group
cpu_platform.install()
found["wrapped twice"] = torch.distributed.init_process_group is not wrapped
found["resource"], found["backend"] = platform.ray_resource_name(), platform.communication_backend_name()
found["vllm"] = importlib.metadata.version("vllm")
try:
    importlib.metadata.version("no-such-distribution")
except importlib.metadata.PackageNotFoundError as error:
    found["missing"] = "no-such-distribution" in str(error)
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
torch.distributed.init_process_group("cpu:gloo,cpu:gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
found["group"] = torch.distributed.get_backend()
module = platform.device_module
module.empty_cache(); module.set_device("cpu")
free, total = module.mem_get_info()
found["memory"] = 0 < free <= total and module.memory_allocated() > 0
state = module.get_rng_state(); first = torch.rand(1); module.set_rng_state(state)
found["rng"] = bool(torch.rand(1) == first)
"""


def look(code: str, platform: str | None) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("VERL_", "VLLM_"))}
    environment |= {} if platform is None else {"VERL_PLATFORM": platform}
    run = subprocess.run(
        [sys.executable, "-c", code + "print('found:' + json.dumps(found))"],
        capture_output=True, text=True, timeout=110, env=environment,
    )  # fmt: skip
    lines = [line for line in run.stdout.splitlines() if line.startswith("found:")]
    assert lines, run.stderr[-3000:]
    found: dict[str, Any] = json.loads(lines[0].removeprefix("found:"))
    return found


def test_nothing_happens_unless_it_is_asked_for() -> None:
    found = look(LOOK, None)
    assert found["device"] != "cpu"
    assert not found["registered"]
    assert not found["wrapped"]


def test_asked_for_it_is_registered_and_works() -> None:
    found = look(LOOK + LOOK_CPU, "cpu")
    assert found == {
        "device": "cpu",
        "registered": True,
        "wrapped": True,
        "wrapped twice": False,
        "resource": "GPU",
        "backend": "gloo",
        "vllm": found["vllm"],
        "missing": True,
        "group": "cpu:gloo",  # named once
        "memory": True,
        "rng": True,
    }
    assert found["vllm"].split("+")[0].count(".") == 2
