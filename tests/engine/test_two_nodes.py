"""Two nodes on one machine: two network namespaces, a Ray of `ray_cluster.sh` in each, and the CPU profile over both.

Trains, loses a node in the middle of a step, and resumes once the node is back. The cluster is not the run's own and
has to outlive it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from medix_verl.training.watch import PEARSON
from tests.engine.drills import END_LIMIT_S, PROMPTS, RESPONSES, ROOT, START_LIMIT_S, Drill, model_and_data, shell

HEAD_IP, WORKER_IP, RAY_PORT, JUDGE_PORT = "10.77.13.1", "10.77.13.2", 6399, 8085
NODES = {"medix-head": HEAD_IP, "medix-worker": WORKER_IP}
LATENCY_MS = 500


def run(*command: str, timeout_s: float = 120, check: bool = True, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def may_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "medix-may"], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", "medix-may"], capture_output=True)
    return made


pytestmark = [
    pytest.mark.drill,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not may_make_namespaces(), reason="needs root and `ip netns`"),
]


@dataclass(frozen=True)
class Cluster:
    folder: Path

    def ray(self, node: str, *arguments: str, check: bool = True) -> str:
        """`ray_cluster.sh` on a node."""
        settings = {"NODE_IP": NODES[node], "HEAD": f"{HEAD_IP}:{RAY_PORT}", "RAY_PORT": str(RAY_PORT)}
        settings |= {
            "HARDWARE": "cpu",
            "CLUSTER_DIR": str(self.folder / "ray"),
            "TEMP_DIR": f"/tmp/medix-drill-{RAY_PORT}",
        }
        settings |= {"WAIT_S": "30"}
        script = ["bash", "recipes/medix/ray_cluster.sh", *arguments]
        return run("ip", "netns", "exec", node, *script, check=check, **settings)

    def environment(self) -> dict[str, str]:
        """What `ray_cluster.sh head` told its user to export."""
        token = str(self.folder / "ray" / "token")
        return {"RAY_ADDRESS": f"{HEAD_IP}:{RAY_PORT}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("two_nodes"))
    ends = dict(zip(NODES, ("medix-v0", "medix-v1"), strict=True))
    try:
        run("ip", "link", "add", ends["medix-head"], "type", "veth", "peer", "name", ends["medix-worker"])
        for node, address in NODES.items():
            run("ip", "netns", "add", node)
            run("ip", "link", "set", ends[node], "netns", node)
            run("ip", "-n", node, "addr", "add", f"{address}/24", "dev", ends[node])
            for interface in ("lo", ends[node]):
                run("ip", "-n", node, "link", "set", interface, "up")
        exports = made.ray("medix-head", "head")
        assert all(f"{name}={value}" in exports for name, value in made.environment().items())
        made.ray("medix-worker", "worker")
        made.ray("medix-head", "wait", "2")
        yield made
    finally:
        for node in reversed(NODES):
            made.ray(node, "stop", check=False)
            run("ip", "netns", "del", node, check=False)


@pytest.fixture(scope="module")
def drill(cluster: Cluster) -> Iterator[Drill]:
    folder = cluster.folder
    ground = model_and_data(folder)
    serve = f"ip netns exec medix-head python -m examples.rule_judge --host {HEAD_IP} --port {JUDGE_PORT}"
    judge = shell(f"{serve} --latency-ms {LATENCY_MS} --parent-pid {os.getpid()}", folder / "judge.log")
    two_nodes = ("trainer.nnodes=2", "trainer.n_gpus_per_node=1")
    url = f"http://{HEAD_IP}:{JUDGE_PORT}"
    yield Drill(folder / "run", ground / "tiny-vlm", ground / "data", url, two_nodes, "ip netns exec medix-head")
    judge.terminate()
    judge.wait(10)


@pytest.fixture(scope="module")
def first_run(drill: Drill, cluster: Cluster) -> Drill:
    """Two steps on two nodes."""
    two_steps = replace(drill, extra=(*drill.extra, "trainer.total_training_steps=2"))
    assert two_steps.start(**cluster.environment()).wait(START_LIMIT_S) == 0, drill.said()
    return two_steps


def test_both_nodes_train_one_model(first_run: Drill) -> None:
    assert first_run.logged_steps() == [1, 2]
    assert min(step[PEARSON] for step in first_run.metrics().values()) >= 0.999
    shards = (first_run.run / "checkpoints" / "global_step_2" / "actor").glob("model_world_size_2_rank_*.pt")
    assert len(list(shards)) == 2
    # Ray names the node in the lines that come from another one than the driver's.
    assert f"ip={WORKER_IP}" in (first_run.run / "train.log").read_text(errors="replace")


def test_the_run_leaves_nothing_behind_but_the_cluster(first_run: Drill, cluster: Cluster) -> None:
    assert [process.name() for process in first_run.processes()] == []
    cluster.ray("medix-head", "wait", "2")


def test_a_lost_node_ends_the_run_and_the_same_command_resumes(
    first_run: Drill, drill: Drill, cluster: Cluster
) -> None:
    four_steps = replace(drill, extra=(*drill.extra, "trainer.total_training_steps=4"))
    process = four_steps.start(**cluster.environment())

    def in_the_middle_of_step_3() -> bool:
        return 0 < sum(row["step"] == 3 for row in four_steps.trained()) < PROMPTS * RESPONSES

    four_steps.wait_for(in_the_middle_of_step_3, process, START_LIMIT_S)
    start = time.monotonic()
    cluster.ray("medix-worker", "stop")
    assert process.wait(END_LIMIT_S) == 2
    print(f"the run ended {time.monotonic() - start:.1f} s after its node was lost")
    assert "The same command resumes from" in four_steps.said()
    assert four_steps.saved_step() == 2

    cluster.ray("medix-worker", "worker")
    cluster.ray("medix-head", "wait", "2")
    assert four_steps.start(**cluster.environment()).wait(START_LIMIT_S) == 0, four_steps.said()
    assert four_steps.logged_steps() == [1, 2, 3, 4]
    assert all(len(samples) == PROMPTS for samples in four_steps.samples_by_step().values())
