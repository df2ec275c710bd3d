"""Training on several nodes: which entry point to start, and what of the driver's environment the nodes are given."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from medix.errors import ConfigError

PREFIXES = (
    "MEDIX_", "VERL_", "VLLM_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "OMP_", "ONEDNN_", "TORCH_", "NCCL_", "PYTORCH_",
    "WANDB_", "TENSORBOARD_", "TRACKIO_", "MLFLOW_", "HYDRA_", "PYTHONSAFEPATH",
)  # fmt: skip
# Ray shows a run's environment in its logs and state: keys are given to each node before `ray start` instead.
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
OF_ONE_NODE = ("_SOCKET_IFNAME", "_IB_HCA", "VLLM_HOST_IP")
"""Names of a node's own hardware and addresses."""


def entry_point(config: Any) -> str:
    """Return the module that trains: veRL's own, or ours that joins the running cluster of `RAY_ADDRESS` first.

    Raises:
        ConfigError: several nodes are asked for and there is no cluster.
    """
    if os.environ.get("RAY_ADDRESS"):
        return "medix_verl.plugins.cluster_ppo"
    if int(config.trainer.nnodes) > 1:
        raise ConfigError(
            f"trainer.nnodes is {config.trainer.nnodes}, but RAY_ADDRESS names no running Ray cluster.",
            "Start one with recipes/medix/ray_cluster.sh (docs/cluster.md) and export the RAY_ADDRESS it prints.",
        )
    return "verl.trainer.main_ppo"


def own_ray_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a token for the Ray that a run starts itself: it listens on every interface, and runs what a client sends.

    Empty where the run joins a cluster, or the user has chosen Ray's authentication.
    """
    if environment.get("RAY_ADDRESS") or environment.get("RAY_AUTH_MODE"):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def handed_over(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what workers on every node need of the driver's environment; no secrets, nothing that is one node's."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIXES) and not _is_secret(name) and not any(part in name for part in OF_ONE_NODE)
    }


def _is_secret(name: str) -> bool:
    return not name.startswith("TOKENIZERS_") and any(word in name for word in SECRET_WORDS)
