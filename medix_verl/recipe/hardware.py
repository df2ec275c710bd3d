"""Which GPUs a recipe takes, whether they are there, and what would run on those that are."""

from __future__ import annotations

import os
import re
import socket
import subprocess

from medix.errors import ConfigError
from medix.processes import child_environment, python_command
from medix_verl.preflight.machine import list_gpus
from medix_verl.recipe.knobs import Knobs

DEMO = "without a GPU run `make demo`, the whole pipeline on two CPU cores"


def choose_hardware(recipe: str, knobs: Knobs) -> Knobs:
    """Return the knobs with JUDGE, HARDWARE and LORA_RANK filled in, as they go with each other.

    Raises:
        ConfigError: they do not go together.
    """
    chosen = Knobs(knobs)
    chosen["JUDGE"] = knobs["JUDGE"] or ("external" if knobs["JUDGE_URL"] else "")
    if knobs["HARDWARE"] == "gpu_24gb":
        chosen["JUDGE"] = chosen["JUDGE"] or "external"
        chosen["LORA_RANK"] = knobs["LORA_RANK"] or "64"
        if chosen["LORA_RANK"] == "0":
            raise ConfigError(
                "HARDWARE=gpu_24gb has no room to train all weights (LORA_RANK=0).", "Leave LORA_RANK out."
            )
    chosen["JUDGE"] = chosen["JUDGE"] or "colocated"
    if not knobs["HARDWARE"]:
        several = knobs.number("NNODES") > 1  # 12 trainers on two nodes do not divide an update, 14 do
        chosen["HARDWARE"] = "gpu_7_judge_1" if several else "gpu_6_judge_2"
        if chosen["JUDGE"] != "colocated":
            chosen["HARDWARE"] = "gpu_8"
    if recipe == "medix_30b" and chosen["HARDWARE"] == "gpu_7_judge_1":
        raise ConfigError(
            f"The 30B does not fit the rollout engines of one GPU that HARDWARE=gpu_7_judge_1 has (NNODES="
            f"{knobs['NNODES']}).",
            "Serve the judge elsewhere: JUDGE=external JUDGE_URL=http://HOST:PORT HARDWARE=gpu_8.",
        )
    if chosen["JUDGE"] == "external" and not knobs["JUDGE_URL"]:
        raise ConfigError(
            f"HARDWARE={chosen['HARDWARE']} with JUDGE=external has no judge (JUDGE_URL is empty).",
            "Set JUDGE_URL=http://HOST:PORT JUDGE_MODEL=NAME; on that host, `bash recipes/medix/serve.sh judge MODEL`.",
        )
    if chosen["JUDGE"] == "local" and knobs.number("NNODES") > 1:
        raise ConfigError(
            f"JUDGE=local listens on 127.0.0.1, and NNODES is {knobs['NNODES']}.",
            "Start `HOST=ADDRESS bash recipes/medix/serve.sh judge MODEL`, then set JUDGE_URL.",
        )
    return chosen


def gpus_needed(knobs: Knobs) -> int:
    """Return the GPUs of a node. The names of config/hardware say how many train and how many judge: gpu_6_judge_2."""
    named = re.fullmatch(r"gpu_(\d+)(?:_judge_(\d+))?", knobs["HARDWARE"])
    trainers = knobs.number("GPUS") or (int(named[1]) if named else 1)
    return trainers + (int(named[2] or 1) if named and knobs["JUDGE"] == "colocated" else 0)


def check_gpus(recipe: str, knobs: Knobs) -> None:
    """Count the GPUs of this machine, or of the cluster of RAY_ADDRESS, before anything is downloaded.

    Raises:
        ConfigError: too few; with what would run here instead.
    """
    needed, nodes, address = gpus_needed(knobs), knobs.number("NNODES"), os.environ.get("RAY_ADDRESS", "")
    what = f"recipes/medix/run_{recipe.removeprefix('medix_')}.sh with HARDWARE={knobs['HARDWARE']}"
    if address:
        found = cluster_gpus(address)
        if found >= needed * nodes:
            return
        remedy = "The other nodes join by `recipes/medix/ray_cluster.sh worker`"
        remedy += f"; {DEMO}." if not found else f"; or {smaller_run(recipe, knobs, found)}." if nodes == 1 else "."
        raise ConfigError(
            f"{what} NNODES={nodes} takes {needed * nodes} GPU(s), and the cluster of RAY_ADDRESS has {found}.", remedy
        )
    if nodes > 1:
        raise ConfigError(
            f"NNODES is {nodes}, and RAY_ADDRESS names no Ray cluster.",
            f"Start it with recipes/medix/ray_cluster.sh, which prints the exports; {DEMO}.",
        )
    found = len(list_gpus())
    if found >= needed:
        return
    dry = f"`DRY_RUN=1 bash recipes/medix/run_{recipe.removeprefix('medix_')}.sh` shows this recipe"
    remedy = f"Run {smaller_run(recipe, knobs, found)}" if found else f"{DEMO[0].upper()}{DEMO[1:]}; {dry}"
    raise ConfigError(f"{what} takes {needed} NVIDIA GPU(s), and there are {found or 'none'}.", f"{remedy}.")


def smaller_run(recipe: str, knobs: Knobs, found: int) -> str:
    """Return a command for so few GPUs: 640 responses an update divide among 2, 4 or 8 trainers."""
    judge = f"JUDGE=external JUDGE_URL={knobs['JUDGE_URL'] or 'http://HOST:PORT'}"
    if found == 1:
        return f"`HARDWARE=gpu_24gb GPUS=1 {judge} bash recipes/medix/run_3b.sh` (one GPU of 24 GB)"
    trainers = max(number for number in (2, 4, 8) if number <= found)
    size = "8b" if recipe == "medix_30b" and trainers < 8 else recipe.removeprefix("medix_")
    if trainers == 2:  # 7B: weights, gradients and moments alone are 66 GB on each
        size = {"7b": "3b", "8b": "2b"}.get(size, size)
    judge = "JUDGE=local" if knobs["JUDGE"] == "local" else judge
    return f"`HARDWARE=gpu_8 GPUS={trainers} {judge} bash recipes/medix/run_{size}.sh`"


def cluster_gpus(address: str) -> int:
    """Return the GPUs of a Ray cluster. Ray itself asks a dead address for minutes, so a socket asks first.

    Raises:
        ConfigError: nothing answers there.
    """
    silent = ConfigError(
        f"The Ray cluster of RAY_ADDRESS={address} gives no answer.",
        f"Start it with recipes/medix/ray_cluster.sh (docs/cluster.md), or unset RAY_ADDRESS; {DEMO}.",
    )
    if place := re.fullmatch(r"(?:ray://)?([^\]:/\[]+):([0-9]+)", address):
        try:
            socket.create_connection((place[1], int(place[2])), timeout=3).close()
        except (OSError, OverflowError):
            raise silent from None
    try:
        counted = subprocess.run(
            python_command("medix_verl.recipe.hardware", address),
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=60 if list_gpus() else 10,  # a machine without a GPU may belong to no cluster
            check=True,
        )
        return int(counted.stdout.split()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        raise silent from None


def devices_at(positions: str) -> str:
    """Return the GPUs at these positions among the visible ones: of CUDA_VISIBLE_DEVICES=4,5,6,7 those at 0,1 are 4,5.

    Raises:
        ConfigError: there is none at one of them.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not visible:
        return positions
    if max(map(int, positions.split(","))) >= len(visible):
        raise ConfigError(
            f"JUDGE_DEVICES={positions} lies outside CUDA_VISIBLE_DEVICES={','.join(visible)}.",
            "Correct JUDGE_DEVICES, or list more GPUs.",
        )
    return ",".join(visible[int(position)] for position in positions.split(","))


def _print_cluster_gpus(address: str) -> None:
    import ray

    ray.init(address, log_to_driver=False, logging_level="ERROR")
    print(int(ray.cluster_resources().get("GPU", 0)))


if __name__ == "__main__":
    import sys

    _print_cluster_gpus(sys.argv[1])
