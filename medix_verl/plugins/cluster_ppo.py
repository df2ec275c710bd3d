"""Run veRL's entry point on a Ray cluster that runs already: `python -m medix_verl.plugins.cluster_ppo`.

A Ray that veRL starts itself hands the driver's environment to every worker; on a cluster the workers have the
environment of `ray start`. So this joins the cluster of `RAY_ADDRESS` first, with what the run needs handed over, and
then lets veRL go on as ever. The cluster outlives the run.
"""

from __future__ import annotations

import ray
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.trainer.main_ppo import main as verl_main

from medix_verl.training.cluster import handed_over


def join_cluster() -> None:
    """Connect to the cluster of `RAY_ADDRESS`, in place of veRL's own `ray.init`."""
    runtime_env = get_ppo_ray_runtime_env()
    # What the user set wins over veRL's defaults, as it does on one node.
    runtime_env["env_vars"] |= {"TRANSFER_QUEUE_ENABLE": "1", **handed_over()}
    ray.init(runtime_env=runtime_env)


if __name__ == "__main__":
    join_cluster()
    verl_main()
