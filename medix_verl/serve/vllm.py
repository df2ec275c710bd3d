"""The command lines of vLLM's OpenAI server, as a judge and as an embedder, and which GPUs each replica gets.

Flags checked against vLLM 0.28, the CPU profile's; the GPU profile's 0.24 was not looked at.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from medix.errors import ConfigError

_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",  # some processors advertise AMX and refuse it
}


def judge_command(model: str, name: str, host: str, port: int, max_model_len: int, max_num_seqs: int) -> list[str]:
    """A judge: one short constrained reply to each of many prompts that begin alike."""
    return [
        *_server(model, name, host, port),
        *("--max-model-len", str(max_model_len), "--max-num-seqs", str(max_num_seqs)),
        "--enable-prefix-caching",  # every prompt begins with the same instructions
        # The folder's own sampling defaults (a repetition penalty, a temperature) must not reach a verdict.
        *("--generation-config", "vllm"),
    ]


def embedder_command(model: str, name: str, host: str, port: int, max_num_seqs: int) -> list[str]:
    """An embedder, of any architecture that vLLM can pool."""
    pooling = ("--runner", "pooling", "--convert", "embed")
    return [*_server(model, name, host, port), *pooling, "--max-num-seqs", str(max_num_seqs)]


def _server(model: str, name: str, host: str, port: int) -> list[str]:
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("an installed vLLM", "none in this environment", "pip install -e '.[gpu]', or `make setup`")
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model),
        *("--served-model-name", name, "--host", host, "--port", str(port)),
        "--disable-uvicorn-access-log",
    ]


def server_environment(api_key_env: str, gpus: Sequence[str]) -> dict[str, str]:
    """What a server needs beside this process's environment. The key goes by environment, never by command line.

    Raises:
        ConfigError: `api_key_env` names a variable that is not set.
    """
    environment = {"VLLM_NO_USAGE_STATS": "1"}
    if not gpus:
        environment |= {name: os.environ.get(name, value) for name, value in _CPU_ENVIRONMENT.items()}
    if api_key_env:
        key = os.environ.get(api_key_env, "")
        if not key:
            raise ConfigError(f"a key in the environment variable {api_key_env}", "none", f"export {api_key_env}=...")
        environment["VLLM_API_KEY"] = key
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return environment


def visible_gpus() -> list[str]:
    """Indices or ids of the GPUs that this process may use; empty on a machine without."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    try:
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.split()


def share_gpus(gpus: Sequence[str], replicas: int, per_replica: int) -> list[list[str]]:
    """The GPUs of each replica; empty lists where there are none at all.

    Raises:
        ConfigError: there are GPUs, but too few.
    """
    if replicas < 1 or per_replica < 1:
        raise ConfigError("at least one replica of one GPU", f"{replicas} of {per_replica}", "correct --replicas")
    if not gpus:
        return [[] for _ in range(replicas)]
    if replicas * per_replica > len(gpus):
        raise ConfigError(
            f"{replicas} x {per_replica} GPUs",
            f"{len(gpus)} ({', '.join(gpus)})",
            "lower --replicas or --tensor-parallel-size, or widen CUDA_VISIBLE_DEVICES",
        )
    return [list(gpus[start * per_replica :][:per_replica]) for start in range(replicas)]


def served_name(model: str) -> str:
    """A folder is served under its own name, a hub id as it is."""
    return Path(model).resolve().name if Path(model).is_dir() else model
