"""`ray_cluster.sh` and the Slurm example with stand-ins for `ip`, `srun` and `scontrol`; for real: tests/engine."""

from __future__ import annotations

import pytest

from tests.recipes.checkout import Checkout

pytestmark = pytest.mark.slow

NO_IP = "#!/bin/sh\nexit 127\n"
NO_ROUTE = "#!/bin/sh\n[ $1 = -o ] && echo '1: lo    inet 127.0.0.1/8 scope host lo' && exit 0\nexit 2\n"


@pytest.mark.parametrize(
    ("ip", "knobs", "found"),
    [
        (NO_IP, {}, "expected the address that this node sends from; found none"),
        (NO_ROUTE, {}, "expected the address that this node sends from; found none"),
        (NO_IP, {"NODE_IP": "10.0.0.1"}, "expected NODE_IP to be an address of this node; found 10.0.0.1"),
        (NO_ROUTE, {"NODE_IP": "10.0.0.1"}, "expected NODE_IP to be an address of this node; found 10.0.0.1"),
    ],
    ids=["no ip command", "no route", "no ip command, address set", "address of another node"],
)
def test_a_node_without_an_address_says_set_node_ip(
    equipped: Checkout, ip: str, knobs: dict[str, str], found: str
) -> None:
    """It used to end without a word."""
    equipped.fake("ip", ip)
    ended = equipped.run("ray_cluster.sh", "head", **knobs)
    assert ended.returncode == 2
    assert found in ended.stderr
    assert "Fix: set NODE_IP" in ended.stderr
    assert not list((equipped.root / "outputs/ray").glob("*.mark"))  # nothing was started


MANY = r"""#!/bin/sh
echo '2: eth0    inet 10.0.0.1/8 scope global eth0'
for n in $(seq 200); do echo "$n: veth$n    inet 10.1.0.$n/8 scope global veth$n"; done
sleep 0.3
echo '999: last    inet 10.2.0.1/8'
"""


def test_a_node_with_many_addresses_finds_its_interface(equipped: Checkout) -> None:
    """Who stops to read at the first ends `ip` by SIGPIPE, which looked like an address of another node."""
    equipped.fake("ip", MANY)
    equipped.fake("ray", "#!/bin/sh\nexec >&2\necho interface $GLOO_SOCKET_IFNAME\n")
    ended = equipped.run("ray_cluster.sh", "head", NODE_IP="10.0.0.1")
    assert ended.returncode == 0, ended.stderr
    (log,) = (equipped.root / "outputs/ray").glob("*.log")
    assert log.read_text() == "interface eth0\n"


def test_without_arguments_it_explains_itself_on_any_machine(equipped: Checkout) -> None:
    equipped.fake("ip", NO_IP)
    ended = equipped.run("ray_cluster.sh")
    assert (ended.returncode, ended.stderr) == (2, "")
    assert "ray_cluster.sh status | stop | address" in ended.stdout


FAKE_SRUN = r"""#!/usr/bin/env bash
echo "srun $*" >>"$CALLS"
case $* in
  *' address') echo 10.0.0.1 ;;
  *' head') mkdir -p "$CLUSTER_DIR" && touch "$CLUSTER_DIR/token" ;;
esac
"""


def test_slurms_steps_of_the_cluster_have_all_cpus_of_a_node(equipped: Checkout) -> None:
    """Since Slurm 22.05 srun has one CPU a task unless it is told; veRL reserves 33."""
    equipped.fake("srun", FAKE_SRUN)
    equipped.fake("scontrol", "#!/bin/sh\nprintf 'a\\nb\\n'\n")
    (equipped.root / "recipe.sh").write_text('echo "recipe $NNODES $RAY_ADDRESS $RUN" >>"$CALLS"\n')
    slurm = {
        "SLURM_SUBMIT_DIR": str(equipped.root), "SLURM_JOB_NAME": "medix", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a,b", "SLURM_CPUS_PER_TASK": "64",
    }  # fmt: skip
    # The stand-in for Ray counts two nodes.
    ended = equipped.run("slurm/medix.sbatch", "recipe.sh", CLUSTER_GPUS="2", NODE_IP="127.0.0.1", **slurm)
    assert ended.returncode == 0, ended.stderr
    steps = {call.split()[-1]: call for call in equipped.calls() if call.startswith("srun")}
    assert {name: "--cpus-per-task=64" in call for name, call in steps.items()} == {
        "address": False, "head": True, "worker": True, "stop": False,
    }  # fmt: skip
    assert "recipe 2 10.0.0.1:20007 outputs/medix" in equipped.calls()
