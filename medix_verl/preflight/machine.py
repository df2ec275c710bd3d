"""What this machine offers: packages, driver, GPUs, CPUs, memory limits. Imports no torch; a child process does."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.check import Check

DRIVERS = {12: 525, 13: 580}
"""CUDA's major version -> the oldest NVIDIA driver that runs it."""
CPUS_A_WORKER = 3
"""veRL bundles so many CPUs with every GPU slot (`max_colocate_count`)."""
SHM_GB = 10.0
"""What veRL's documentation gives a container (`--shm-size=10g`)."""
OPEN_FILES, FEW_FILES = 65_536, 4_096
"""Ray's recommendation for `ulimit -n`, and what eight workers and their sockets pass in practice."""
BUSY_GB = 2.0
"""Memory of a card that others may use before the run would miss it: its context is estimated at as much."""


@dataclass(frozen=True)
class Gpu:
    """One card, as nvidia-smi describes it. `used_gb` is in use now, by whichever process."""

    name: str
    memory_gb: float
    used_gb: float = 0.0
    driver: str = ""


def list_gpus(timeout_s: float = 60) -> list[Gpu]:
    """Return the NVIDIA GPUs that a process started here may use; none where nvidia-smi is absent or fails.

    Raises:
        ConfigError: nvidia-smi does not answer. On a node without persistence mode it takes 25 s and more.
    """
    fields = "index,uuid,name,memory.total,memory.used,driver_version"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=timeout_s, check=True).stdout
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"nvidia-smi gave no answer within {timeout_s:g} s.",
            "Switch on persistence mode (sudo nvidia-smi -pm 1), or look for a card that hangs (dmesg | grep Xid).",
        ) from None
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.count(",") == 5]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else {name.strip() for name in visible.split(",")}
    return [
        Gpu(name, float(total) * 2**20 / 1e9, float(used) * 2**20 / 1e9, driver)
        for index, uuid, name, total, used, driver in rows
        if chosen is None or index in chosen or uuid in chosen
    ]


def judge_gpus(config: Any) -> int:
    """Return the GPUs, over all nodes, that a judge has to itself."""
    model = config.reward.reward_model
    return int(model.n_gpus_per_node * model.nnodes) if model.enable and model.enable_resource_pool else 0


def on_a_cluster(config: Any) -> bool:
    """Return whether the run spans more than this machine."""
    return bool(config.trainer.nnodes > 1 or os.environ.get("RAY_ADDRESS"))


def check_gpus(config: Any, gpus: list[Gpu]) -> str | Check:
    """Check that there are as many GPUs as trainer and colocated judge ask for, and none that others are using."""
    if config.trainer.device != "cuda":
        return f"none needed: {config.trainer.device}"
    trainer, judge, nodes = config.trainer.n_gpus_per_node, judge_gpus(config), config.trainer.nnodes
    wanted = f"{trainer * nodes} to train" + (f" and {judge} for the judge" if judge else "")
    needed = trainer * nodes + judge
    if on_a_cluster(config):
        return Check("warn", f"{wanted}, over {nodes} node(s); {len(gpus)} here", "See `ray status`.")
    if len(gpus) < needed:
        raise ConfigError(
            f"The run takes {needed} NVIDIA GPU(s), {wanted}; nvidia-smi lists {len(gpus) or 'none'}.",
            "Set GPUS= or HARDWARE= to what is there, or JUDGE_URL= to a judge elsewhere."
            if gpus
            else "Run `make demo`, which needs no GPU, or go to a machine that has them.",
        )
    names = ", ".join(sorted({f"{gpu.name} ({gpu.memory_gb:.0f} GB)" for gpu in gpus}))
    busy = [f"GPU {number}: {gpu.used_gb:.0f} GB" for number, gpu in enumerate(gpus) if gpu.used_gb > BUSY_GB]
    if busy and not has_local_judge(config):
        raise ConfigError(
            f"Other processes hold memory of the GPUs ({', '.join(busy)}).",
            "End them (nvidia-smi lists them), or name free GPUs with CUDA_VISIBLE_DEVICES.",
        )
    return f"{len(gpus)} x {names}; {wanted}"


def has_local_judge(config: Any) -> bool:
    """Return whether a judge is served on this node: the configuration does not know its share of the cards."""
    from urllib.parse import urlsplit

    urls = [] if config.reward.reward_model.enable else config.medix.scorer.judge.urls
    return any(urlsplit(str(url)).hostname in ("127.0.0.1", "localhost", "::1") for url in urls)


def check_versions() -> str | Check:
    """Hold installed versions against setup.py's pins, for the extra (cpu or gpu) that fits the installed torch."""
    from packaging.requirements import Requirement

    extra = "cpu" if "+cpu" in _version("torch") else "gpu"
    off = []
    for text in importlib.metadata.requires("medix") or []:
        requirement = Requirement(text)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        found = _version(requirement.name)
        if not found or not requirement.specifier.contains(found, prereleases=True):
            off.append(f"{requirement.name} {found or 'missing'} (pinned {requirement.specifier})")
    if off:
        return Check("fail", "; ".join(off), f"Run `pip install -e '.[{extra}]'`, or `make setup` on a CPU.")
    return f"all pins of the extra '{extra}' are met"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


_PROBE = """
import importlib, json, sys
found = {"failed": {}}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except BaseException as error:
        found["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
try:
    import torch
    found |= {"cuda": torch.version.cuda, "available": torch.cuda.is_available(), "devices": torch.cuda.device_count()}
    found["platform"] = importlib.import_module(sys.argv[2]).get_platform().device_name
except BaseException as error:
    found["platform"] = f"{type(error).__name__}: {error}".splitlines()[0]
print("probe:", json.dumps(found))
"""


def needs_flash_attention(config: Any) -> bool:
    """Return whether the trainer calls flash-attn: veRL's packed path of Qwen2.5-VL does, with any attention chosen."""
    from medix_verl.preflight.model import shape_of

    model = config.actor_rollout_ref.model
    chosen = (model.get("override_config") or {}).get("attn_implementation", "flash_attention_2")
    shape = shape_of(str(model.path)) if model.use_remove_padding else None
    packed = shape is not None and shape.family == "qwen2_5_vl"
    return config.trainer.device == "cuda" and (chosen == "flash_attention_2" or packed)


def entry_modules(config: Any) -> tuple[str, ...]:
    """Return the modules that the processes of a run begin with: veRL's, vLLM, ours, and the attention's."""
    modules = ["verl.trainer.main_ppo", "verl.trainer.ppo.v1", "verl.workers.engine_workers", "transfer_queue", "vllm"]
    modules += ["medix_verl.plugins"]
    for key in ("data.custom_cls", "reward.reward_manager.module", "trainer.v1.sampler.custom_sampler"):
        from omegaconf import OmegaConf

        path = str(OmegaConf.select(config, f"{key}.path") or "")
        modules += [path.removeprefix("pkg://")] if path.startswith("pkg://") else []
    if needs_flash_attention(config):
        modules += ["flash_attn", "flash_attn_2_cuda"]
    optimizer = str(config.actor_rollout_ref.actor.optim.optimizer_impl)
    return (*modules, *([optimizer] if optimizer.startswith("torchao") else []))


@cache
def probe(modules: tuple[str, ...]) -> Mapping[str, Any]:
    """Import modules in a child process, and ask its torch and veRL which device they see.

    Returns:
        `failed` (module -> error), `cuda`, `available`, `devices`, `platform`.
    """
    code = [sys.executable, "-P", "-c", _PROBE, json.dumps(modules), "verl.plugin.platform"]
    run = subprocess.run(code, capture_output=True, text=True, timeout=600, env=os.environ)
    for line in run.stdout.splitlines():
        if line.startswith("probe: "):
            found: dict[str, Any] = json.loads(line.removeprefix("probe: "))
            return found
    reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
    return {"failed": {modules[0]: reason}, "platform": reason}


def check_imports(config: Any) -> str:
    """Check that everything the run's processes import can be imported here, and not only has the right version."""
    modules = entry_modules(config)
    if broken := probe(modules)["failed"]:
        raise ConfigError(
            f"The run imports what can not be imported: {'; '.join(f'{name}: {why}' for name, why in broken.items())}.",
            "Run `bash recipes/medix/setup_gpu.sh` again (`make setup` on a CPU): it ends with these imports.",
        )
    return f"{len(modules)} entry modules"


def check_driver(config: Any, gpus: list[Gpu]) -> str:
    """Check that torch can use the GPUs that nvidia-smi lists, and veRL runs on the device of this profile."""
    found, device = probe(entry_modules(config)), config.trainer.device
    if device == "cuda" and gpus:
        cuda = str(found.get("cuda") or "none")
        oldest = DRIVERS.get(int(cuda.split(".")[0]) if cuda[0].isdigit() else 0, 0)
        driver = gpus[0].driver
        if driver and oldest > int(driver.split(".")[0]):
            raise ConfigError(
                f"The NVIDIA driver is {driver}; torch's CUDA {cuda} needs {oldest} or newer.",
                f"Install driver {oldest}; or, on data-centre cards, the compatibility package "
                f"(cuda-compat-{cuda.replace('.', '-')}) with VLLM_ENABLE_CUDA_COMPATIBILITY=1.",
            )
        if not found.get("available") or found.get("devices", 0) < len(gpus):
            raise ConfigError(
                f"torch (CUDA {cuda}) sees {found.get('devices', 0)} of {len(gpus)} GPUs.",
                'Run `python -c "import torch; torch.cuda.init()"`, whose error names the cause.',
            )
    if found["platform"] != device:
        raise ConfigError(
            f"veRL's platform is {found['platform']}, and the run is for {device}.",
            "Start the CPU profile through recipes/medix/run_cpu.sh, which sets VERL_PLATFORM=cpu.",
        )
    return f"veRL runs on {device}" + (f", CUDA {found['cuda']}" if device == "cuda" else "")


def _ray_cpus() -> int:
    """Return Ray's own count: all of the machine's, or a container's quota."""
    from ray._private.utils import get_num_cpus

    return int(get_num_cpus(override_docker_cpu_warning=True))


def check_cpus(config: Any) -> str | Check:
    """Hold the CPUs that Ray sees against those that are reserved: it waits for ever, and silently, for what it lacks.

    Three with each GPU slot of trainer and judge, one a TransferQueue storage unit, one its controller. Other actors
    reserve none.
    """
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    slots = config.trainer.n_gpus_per_node * config.trainer.nnodes + judge_gpus(config)
    needed = CPUS_A_WORKER * slots + units + 1
    parts = f"{CPUS_A_WORKER} x {slots} GPU slot(s) + {units} storage unit(s) + controller"
    if on_a_cluster(config):
        return Check("warn", f"{needed} needed over all nodes: {parts}", "See `ray status`.")
    told = config.ray_kwargs.ray_init.num_cpus
    available = told or _ray_cpus()
    if available < needed:
        given = "ray_kwargs.ray_init.num_cpus says" if told else "the machine, or its container's quota, has"
        raise ConfigError(
            f"Ray needs {needed} CPUs ({parts}); {given} {available}.",
            "Set transfer_queue.backend.SimpleStorage.num_data_storage_units=1, or ray_kwargs.ray_init.num_cpus="
            f"{needed} (Ray counts CPUs, it does not bind them).",
        )
    return f"{available} for Ray, {needed} reserved: {parts}"


def memory_limit_gb(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the main memory of this machine, or what its container's cgroup (version 2, then 1) allows of it."""
    import psutil

    limits = [float(psutil.virtual_memory().total)]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        if (cgroup / file).is_file() and (text := (cgroup / file).read_text().strip()).isdigit():
            limits.append(float(text))
    return min(limits) / 1e9


def check_limits(config: Any, shm: Path = Path("/dev/shm")) -> str | Check:
    """Check shared memory and open files: a container's defaults end vLLM in a bus error, Ray in refused sockets."""
    if config.trainer.device != "cuda":
        return "those of a GPU run are not needed"
    shared = shutil.disk_usage(shm).total / 1e9
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if shared < SHM_GB * 2**30 / 1e9 * 0.99:
        raise ConfigError(
            f"{shm} has {shared:.2f} GB; vLLM and Ray pass tensors through it.",
            "Start the container with --shm-size=10g or more (docker's default is 64 MB), or with --ipc=host.",
        )
    if soft <= FEW_FILES and hard != resource.RLIM_INFINITY and hard <= FEW_FILES:
        raise ConfigError(
            f"At most {hard} files may be open (ulimit -n); Ray recommends {OPEN_FILES}.",
            f"Start the container with --ulimit nofile={OPEN_FILES}, or raise nofile in /etc/security/limits.conf.",
        )
    if soft < OPEN_FILES:
        return Check("warn", f"ulimit -n is {soft}; Ray recommends {OPEN_FILES}", f"Run `ulimit -n {OPEN_FILES}`.")
    return f"/dev/shm {shared:.0f} GB, {soft} open files"


def check_trackers(config: Any, environment: Mapping[str, str] = os.environ) -> str:
    """Check that the trackers are installed, and W&B has a key: it is asked for when all engines are up."""
    from medix_verl.training.loggers import logger_names

    names = logger_names(config)
    offline = environment.get("WANDB_MODE", "") in ("offline", "disabled", "dryrun")
    if "wandb" in names and not offline and not environment.get("WANDB_API_KEY"):
        import netrc

        host = environment.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
        file = Path(environment.get("NETRC", "") or Path(environment.get("HOME", "~")).expanduser() / ".netrc")
        if not file.is_file() or not netrc.netrc(file).authenticators(host):
            raise ConfigError(
                f"W&B is among the trackers, and there is no key for {host}.",
                "Run `wandb login`, export WANDB_API_KEY, or set WANDB_MODE=offline and sync later.",
            )
    return ", ".join(names)
