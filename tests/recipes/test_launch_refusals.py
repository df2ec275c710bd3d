"""What the launcher refuses before it downloads or prepares anything, and the remedy that it names."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest

from medix_verl.preflight.command import run_preflight
from tests.recipes.launcher import FAKE_NVIDIA_SMI, ROOT, Checkout, parse

DEAD = "127.0.0.1:1"  # nobody listens on port 1
WITHOUT_A_GPU: dict[str, tuple[dict[str, str], str]] = {
    "no nvidia-smi": ({"SMI": "none"}, "expected 8 NVIDIA GPU(s) for recipes/medix/run_7b.sh"),
    "no GPU visible": ({"CUDA_VISIBLE_DEVICES": "", "FAKE_GPUS": "8"}, "found none"),
    "nvidia-smi lists none": ({"FAKE_GPUS": "0"}, "found none"),
    "a scheduler's leftover names GPUs": ({"FAKE_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, "found none"),
    "the same without nvidia-smi": ({"SMI": "none", "CUDA_VISIBLE_DEVICES": "0,1"}, "found none"),
    "one of 24 GB": ({"FAKE_GPUS": "0", "HARDWARE": "gpu_24gb"}, "expected 1 NVIDIA GPU(s)"),
    "a judge elsewhere": ({"FAKE_GPUS": "0", "JUDGE_URL": "http://judge:8000"}, "with HARDWARE=gpu_8; found none"),
    "two nodes": ({"FAKE_GPUS": "0", "NNODES": "2"}, "expected RAY_ADDRESS"),
    "a cluster that is gone": ({"FAKE_GPUS": "0", "RAY_ADDRESS": DEAD}, "found no answer"),
    "two nodes of it": ({"FAKE_GPUS": "0", "RAY_ADDRESS": DEAD, "NNODES": "2"}, "found no answer"),
}


@pytest.mark.parametrize("case", WITHOUT_A_GPU)
def test_without_a_gpu_it_ends_at_once_with_what_to_run_instead(clone: Checkout, case: str) -> None:
    """A fresh clone, no .venv: nothing is imported, downloaded or prepared first."""
    knobs, expected = WITHOUT_A_GPU[case]
    clone.fake("nvidia-smi", "#!/bin/sh\nexit 127\n" if knobs.get("SMI") else FAKE_NVIDIA_SMI)
    start = time.monotonic()
    ended = clone.run("run_7b.sh", **knobs)
    assert time.monotonic() - start < 10
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "`make demo`" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert clone.calls() == []


def test_a_cluster_without_gpus_says_the_same(equipped: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = equipped.run("run_7b.sh", RAY_ADDRESS=address, CLUSTER_GPUS="0", FAKE_GPUS="0")
    assert (ended.returncode, equipped.calls()) == (2, [])
    assert "found 0. Fix:" in ended.stderr
    assert "`make demo`" in ended.stderr


def test_this_checkout_without_a_gpu_says_the_same_in_under_ten_seconds(tmp_path: Path) -> None:
    start = time.monotonic()
    ended = subprocess.run(
        ["bash", "recipes/medix/run_7b.sh"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "RUN": str(tmp_path / "run"), "DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, time.monotonic() - start < 10) == (2, True)
    assert "make demo" in ended.stderr
    assert list(tmp_path.iterdir()) == []


EIGHT, URL = {"FAKE_GPUS": "8"}, "http://judge:8000"
REFUSED: dict[str, tuple[dict[str, str], str, str]] = {
    "seven and the judge's two": ({**EIGHT, "GPUS": "7"}, "expected 9 NVIDIA GPU(s)", "HARDWARE=gpu_8 GPUS=8 JUDGE="),
    "eight train, and a judge": ({**EIGHT, "HARDWARE": "gpu_8"}, "expected 9 NVIDIA GPU(s)", "JUDGE_URL="),
    "two nodes, no cluster": ({**EIGHT, "NNODES": "2"}, "expected RAY_ADDRESS", "ray_cluster.sh"),
    "24 GB, no judge": ({"FAKE_GPUS": "1", "HARDWARE": "gpu_24gb"}, "expected JUDGE_URL", "medix serve judge"),
    "24 GB, all weights": ({**EIGHT, "HARDWARE": "gpu_24gb", "LORA_RANK": "0"}, "expected adapters", "LORA_RANK out"),
    "judge, typo": ({**EIGHT, "JUDGE": "hosted"}, "found hosted", "colocated, local or external"),
    "judge here and elsewhere": ({**EIGHT, "JUDGE": "colocated", "JUDGE_URL": URL}, "JUDGE=external", "leave one"),
    "local judge and elsewhere": ({**EIGHT, "JUDGE": "local", "JUDGE_URL": URL}, "JUDGE=external", "leave one"),
    "local judge, too few listed": (
        {**EIGHT, "JUDGE": "local", "GPUS": "1", "CUDA_VISIBLE_DEVICES": "3"}, "DEVICES=3; found 0,1", "JUDGE_DEVICES",
    ),
    "local judge, too few there": (
        {"FAKE_GPUS": "1", "JUDGE": "local", "GPUS": "1"}, "among the 1 visible GPU(s)", "JUDGE_DEVICES=0",
    ),
    "local judge, typo": ({**EIGHT, "JUDGE": "local", "JUDGE_DEVICES": "0:1"}, "found 0:1", "as 0,1"),
    "rank": ({**EIGHT, "LORA_RANK": "r64"}, "LORA_RANK to be a whole number", "found r64"),
    "rank, negative": ({**EIGHT, "LORA_RANK": "-1"}, "LORA_RANK to be a whole number", "found -1"),
    "nodes": ({**EIGHT, "NNODES": "two"}, "NNODES to be a whole number above 0", "found two"),
    "GPUs": ({**EIGHT, "GPUS": "all"}, "GPUS to be a whole number above 0", "found all"),
    "GPUs, none": ({**EIGHT, "GPUS": "0"}, "GPUS to be a whole number above 0", "found 0"),
    "steps": ({**EIGHT, "STEPS": "1e3"}, "STEPS to be a whole number", "found 1e3"),
    "seed": ({**EIGHT, "SEED": "x"}, "SEED to be a whole number", "found x"),
    "dry run": ({**EIGHT, "DRY_RUN": "true"}, "DRY_RUN to be 0 or 1", "found true"),
    "export": ({**EIGHT, "EXPORT": "yes"}, "EXPORT to be 0 or 1", "found yes"),
    "evaluation": ({**EIGHT, "EVAL": "true"}, "EVAL to be 0 or 1", "found true"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_run_is_refused_before_anything_else_with_its_remedy(equipped: Checkout, case: str) -> None:
    knobs, expected, fix = REFUSED[case]
    ended = equipped.run("run_7b.sh", **knobs)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert fix in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert equipped.calls() == []


CPU_REFUSED = {
    "rank": ({"LORA_RANK": "r4"}, "found r4"),
    "dry run": ({"DRY_RUN": "yes"}, "found yes"),
    "judge": ({"JUDGE": "colocated", "JUDGE_URL": URL}, "leave one of the two out"),
}


@pytest.mark.parametrize("case", CPU_REFUSED)
def test_the_cpu_recipe_refuses_the_same(equipped: Checkout, case: str) -> None:
    knobs, found = CPU_REFUSED[case]
    ended = equipped.run("run_cpu.sh", **knobs)
    assert (ended.returncode, equipped.calls()) == (2, [])
    assert found in ended.stderr


def test_the_30b_on_several_nodes_asks_for_a_judge_elsewhere(equipped: Checkout) -> None:
    """Seven and one would give it rollout engines of one GPU, which do not hold it (test_verl_accepts)."""
    ended = equipped.run("run_30b.sh", RAY_ADDRESS=DEAD, NNODES="2")
    assert (ended.returncode, equipped.calls()) == (2, [])
    assert "expected JUDGE_URL" in ended.stderr
    assert "JUDGE=external JUDGE_URL=http://HOST:PORT HARDWARE=gpu_8" in ended.stderr


@pytest.mark.parametrize(("nodes", "gpus", "accepted"), [("2", "8", False), ("2", "16", True), ("1", "8", True)])
def test_a_clusters_gpus_are_counted_before_any_download(
    equipped: Checkout, nodes: str, gpus: str, accepted: bool
) -> None:
    """Seven and one on each of two nodes: 16."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = equipped.run("run_7b.sh", RAY_ADDRESS=address, NNODES=nodes, CLUSTER_GPUS=gpus)
    assert ("hf download" in equipped.steps()) == (ended.returncode == 0) == accepted, ended.stderr
    if not accepted:
        assert "expected 16 GPU(s) in the Ray cluster" in ended.stderr
        assert "found 8. Fix: the other nodes join by recipes/medix/ray_cluster.sh worker" in ended.stderr


@pytest.mark.slow
def test_who_listens_and_is_no_ray_is_not_waited_for(equipped: Checkout) -> None:
    """The real Ray asks on: for 23 s to minutes, seen here."""
    (equipped.commands / "python").unlink()
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = equipped.run("run_7b.sh", RAY_ADDRESS=address, FAKE_GPUS="0")
    assert (ended.returncode, equipped.calls(), time.monotonic() - start < 20) == (2, [], True)
    assert f"RAY_ADDRESS={address}; found no answer" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_folder_in_data_without_a_manifest_is_not_written_to(equipped: Checkout) -> None:
    (equipped.root / "mine").mkdir()
    (equipped.root / "mine" / "notes.txt").touch()
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", DATA="mine")
    assert ended.returncode == 2
    assert equipped.steps() == ["medix config"]
    assert "found none in mine" in ended.stderr
    # The fake configuration names data/ as the folder; the real one names DATA (test_scripts).
    command = "or make it: MODEL=$(hf download Qwen/Qwen2.5-VL-7B-Instruct --quiet | tail -n 1); medix prepare medix_rl"
    assert command in ended.stderr
    advised = ended.stderr[ended.stderr.index("MODEL=$(") :]
    path = f"{equipped.commands}:/usr/bin:/bin"
    environment = {"PATH": path, "CALLS": str(equipped.root / "calls")}
    subprocess.run(["bash", "-c", advised], cwd=equipped.root, env=environment, check=True)
    words = equipped.words()[-1]
    assert words[words.index("--model") + 1] == "hub/Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize(("knob", "value"), [("MODEL", "Qwen/nowhere"), ("JUDGE_MODEL", "/models/nowhere")])
def test_a_model_that_can_not_be_fetched_is_named_with_its_knob(equipped: Checkout, knob: str, value: str) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", **{knob: value})
    assert ended.returncode == 2
    assert f"expected a folder or a hub id in {knob}; found {value}" in ended.stderr
    assert f"{knob}=FOLDER" in ended.stderr
    assert "medix prepare" not in equipped.steps()


def test_without_hf_its_set_up_is_named(equipped: Checkout) -> None:
    (equipped.commands / "hf").unlink()
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", PATH=f"{equipped.commands}:/usr/bin:/bin")
    assert ended.returncode == 2
    assert "expected the command hf" in ended.stderr
    assert "setup_gpu.sh, or MODEL=FOLDER" in ended.stderr


def test_gpus_without_an_environment_name_its_set_up(clone: Checkout) -> None:
    clone.fake("nvidia-smi", FAKE_NVIDIA_SMI)
    ended = clone.run("run_7b.sh", FAKE_GPUS="8", PATH=f"{clone.commands}:/usr/bin:/bin")
    assert ended.returncode == 2
    assert "setup_gpu.sh" in ended.stderr


ADVISED = [  # script, GPUs that are there, how many of them the advice takes, its script
    ("run_7b.sh", "1", 1, "run_3b.sh"),
    ("run_7b.sh", "2", 2, "run_7b.sh"),
    ("run_2b.sh", "3", 2, "run_2b.sh"),
    ("run_8b.sh", "5", 4, "run_8b.sh"),
    ("run_7b.sh", "7", 4, "run_7b.sh"),
    ("run_30b.sh", "7", 4, "run_8b.sh"),  # the 30B's engines take eight
    ("run_30b.sh", "1", 1, "run_3b.sh"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "found", "taken", "advised"), ADVISED)
def test_the_advice_for_fewer_gpus_can_be_followed(
    equipped: Checkout, script: str, found: str, taken: int, advised: str
) -> None:
    """Copied as it stands it composes, divides and fits: 3, 5, 6 and 7 trainers divide no 640 responses."""
    refused = equipped.run(script, FAKE_GPUS=found)
    assert f"found {found}. Fix:" in refused.stderr
    *knobs, _bash, path = shlex.split(re.findall(r"HARDWARE=gpu_(?:8|24gb) GPUS=.*", refused.stderr)[0])
    assert path == f"recipes/medix/{advised}"
    followed = equipped.run(advised, FAKE_GPUS=found, **dict(knob.split("=", 1) for knob in knobs))
    assert followed.returncode == 0, followed.stderr
    early = next(words for words in equipped.words() if "--config-only" in words)  # with the model's hub name
    checks = run_preflight(early[3], early[6:], gpu_memory_gb=24.0 if taken == 1 else 80.0, config_only=True)
    wanted = {"batch sizes", "rollout engines", "GPU memory", "adapters", "lengths"}
    status = {check.name: check.status for check in checks if check.name in wanted}
    assert status.keys() == wanted
    assert "fail" not in status.values(), [check for check in checks if check.name in wanted]
    assert parse(early[6:])["trainer.n_gpus_per_node"] == taken
