"""What this machine has: GPUs as nvidia-smi names them, cores, main memory. Imports no torch, which takes seconds."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.check import Check

_WITHOUT_A_GPU = "run `make demo` (recipes/medix/run_cpu.sh), which needs no GPU, or go to a machine that has them"


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_gb: float


def list_gpus() -> list[Gpu]:
    """The NVIDIA GPUs that a process started here may use; none where nvidia-smi is absent or fails."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=8, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.count(",") == 3]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else {name.strip() for name in visible.split(",")}
    return [
        Gpu(name, float(mebibytes) * 2**20 / 1e9)
        for index, uuid, name, mebibytes in rows
        if chosen is None or index in chosen or uuid in chosen
    ]


def judge_gpus(config: Any) -> int:
    """GPUs, over all nodes, that a judge has to itself."""
    model = config.reward.reward_model
    return int(model.n_gpus_per_node * model.nnodes) if model.enable and model.enable_resource_pool else 0


def check_gpus(config: Any, gpus: list[Gpu]) -> str | Check:
    """As many GPUs as the trainer and a colocated judge ask for together.

    Raises:
        ConfigError: too few, on the one node there is.
    """
    trainer, judge, nodes = config.trainer.n_gpus_per_node, judge_gpus(config), config.trainer.nnodes
    wanted = f"{trainer * nodes} to train" + (f" and {judge} for the judge" if judge else "")
    needed = trainer * nodes + judge
    if config.trainer.device != "cuda":
        return f"none needed: {config.trainer.device}"
    if nodes > 1 or os.environ.get("RAY_ADDRESS"):
        return Check("GPUs", "warn", f"{wanted}, over {nodes} node(s); {len(gpus)} here", "see `ray status`")
    if len(gpus) < needed:
        raise ConfigError(
            f"{needed} NVIDIA GPU(s), {wanted}",
            f"{len(gpus)}" if gpus else "none (nvidia-smi lists none)",
            "set GPUS= or HARDWARE= to what is there, or JUDGE_URL= to a judge elsewhere" if gpus else _WITHOUT_A_GPU,
        )
    names = ", ".join(sorted({f"{gpu.name} ({gpu.memory_gb:.0f} GB)" for gpu in gpus}))
    return f"{len(gpus)} x {names}; {wanted}"


def _ray_cpus() -> int:
    """Ray's own count: all of the machine's, or a container's quota; the cores that this process may use are not it."""
    from ray._private.utils import get_num_cpus

    return int(get_num_cpus(override_docker_cpu_warning=True))


CPUS_A_WORKER = 3
"""veRL bundles so many CPUs with every GPU slot (`max_colocate_count`)."""


def check_cpus(config: Any) -> str | Check:
    """CPUs that Ray sees, against those that are reserved: Ray waits for ever, and says little, for what it lacks.

    Three with each GPU slot of trainer and judge, one a TransferQueue storage unit, one its controller. Other actors
    reserve none.

    Raises:
        ConfigError: Ray would wait for ever.
    """
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    slots = config.trainer.n_gpus_per_node * config.trainer.nnodes + judge_gpus(config)
    needed = CPUS_A_WORKER * slots + units + 1
    parts = f"{CPUS_A_WORKER} x {slots} GPU slot(s) + {units} storage unit(s) + controller"
    if config.trainer.nnodes > 1 or os.environ.get("RAY_ADDRESS"):
        return Check("CPUs", "warn", f"{needed} needed over all nodes: {parts}", "see `ray status`")
    told = config.ray_kwargs.ray_init.num_cpus
    available = told or _ray_cpus()
    if available < needed:
        raise ConfigError(
            f"{needed} CPUs for Ray ({parts})",
            f"{available}" + (" (ray_kwargs.ray_init.num_cpus)" if told else ""),
            "set transfer_queue.backend.SimpleStorage.num_data_storage_units=1, or ray_kwargs.ray_init.num_cpus="
            f"{needed} (Ray counts CPUs, it does not bind them)",
        )
    return f"{available} for Ray, {needed} reserved: {parts}"
