"""The launcher with stand-ins for `medix`, `hf` and `nvidia-smi`: what is started, in which order, what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FAKE_MEDIX = r"""#!/usr/bin/env bash
echo "medix $*" >>"$CALLS"
case $1 in
  config)
    echo "medix: {data_dir: $PWD/data, prepare: {min_pixels: 1, max_pixels: 2}}"
    echo "data: {max_prompt_length: 9}" ;;
  serve)
    if [[ ${JUDGE_DIES:-} ]]; then exit 1; fi
    echo "export JUDGE_URL=http://127.0.0.1:4242 JUDGE_MODEL=served"
    echo "gpus $CUDA_VISIBLE_DEVICES" >>"$CALLS"
    trap 'echo "judge stopped" >>"$CALLS"; kill %1; exit 0' TERM
    sleep 60 & wait ;;
  train)
    [[ ${FAILS:-} != train ]] || exit 2
    if [[ ${TRAINS_LONG:-} ]]; then
      trap 'sleep 0.3; echo "train saved" >>"$CALLS"; kill %1; exit 130' TERM
      echo "train waits" >>"$CALLS"
      sleep 20 & wait
    fi ;;
  "${FAILS:-none}") exit 2 ;;
esac
"""
FAKE_HF = '#!/usr/bin/env bash\necho "hf $*" >>"$CALLS"\nmkdir -p "hub/$2"\necho "hub/$2"\n'
FAKE_NVIDIA_SMI = '#!/usr/bin/env bash\nfor n in $(seq "$FAKE_GPUS"); do echo "GPU $n: Fake (UUID: x)"; done\n'


@dataclass
class Checkout:
    """The recipes alone, as in a fresh clone: no .venv. `commands` comes first on the PATH."""

    root: Path
    commands: Path

    def start(self, script: str, *overrides: str, **knobs: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.commands}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.root),
            "CALLS": str(self.root / "calls"),
            **knobs,
        }
        command = ["bash", f"recipes/medix/{script}", *overrides]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, script: str, *overrides: str, **knobs: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *overrides, **knobs)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().splitlines() if (self.root / "calls").exists() else []

    def steps(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in self.calls()]

    def fake(self, name: str, text: str) -> None:
        (self.commands / name).write_text(text)
        (self.commands / name).chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path) -> Checkout:
    root, commands = tmp_path / "clone", tmp_path / "bin"
    commands.mkdir()
    shutil.copytree(ROOT / "recipes", root / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    return Checkout(root, commands)


@pytest.fixture
def equipped(clone: Checkout) -> Checkout:
    """Eight GPUs and every command."""
    for name, text in {"medix": FAKE_MEDIX, "hf": FAKE_HF, "nvidia-smi": FAKE_NVIDIA_SMI}.items():
        clone.fake(name, text)
    return clone


@pytest.mark.parametrize("hidden", ["no nvidia-smi", "no GPU visible", "nvidia-smi lists none"])
def test_without_a_gpu_it_ends_at_once_with_what_to_run_instead(clone: Checkout, hidden: str) -> None:
    """A fresh clone, no .venv: nothing is imported, downloaded or prepared first."""
    knobs = {"FAKE_GPUS": "0" if hidden == "nvidia-smi lists none" else "8"}
    clone.fake("nvidia-smi", FAKE_NVIDIA_SMI if hidden != "no nvidia-smi" else "#!/bin/sh\nexit 127\n")
    if hidden == "no GPU visible":
        knobs["CUDA_VISIBLE_DEVICES"] = ""
    start = time.monotonic()
    ended = clone.run("run_7b.sh", **knobs)
    assert time.monotonic() - start < 10
    assert ended.returncode == 2
    assert "expected 8 NVIDIA GPU(s) for recipes/medix/run_7b.sh" in ended.stderr
    assert "found none" in ended.stderr
    assert "`make demo`" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert clone.calls() == []


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


@pytest.mark.parametrize(
    ("knobs", "expected", "fix"),
    [
        ({"FAKE_GPUS": "4"}, "expected 8 NVIDIA GPU(s)", "GPUS=4"),
        ({"FAKE_GPUS": "1"}, "found 1", "HARDWARE=gpu_24gb"),
        ({"FAKE_GPUS": "8", "CUDA_VISIBLE_DEVICES": "2,3"}, "found 2", "GPUS=2"),
        ({"FAKE_GPUS": "8", "GPUS": "7"}, "expected 9 NVIDIA GPU(s)", "GPUS=8"),  # and two for the judge
        ({"FAKE_GPUS": "8", "NNODES": "2"}, "expected RAY_ADDRESS", "ray_cluster.sh"),
        ({"FAKE_GPUS": "1", "HARDWARE": "gpu_24gb"}, "expected JUDGE_URL", "medix serve judge"),
        ({"FAKE_GPUS": "8", "JUDGE": "hosted"}, "found hosted", "colocated, local or external"),
    ],
    ids=["four", "one", "two visible", "seven and the judge's two", "two nodes, no cluster", "24 GB, no judge", "typo"],
)
def test_what_is_missing_is_named_with_its_remedy(
    equipped: Checkout, knobs: dict[str, str], expected: str, fix: str
) -> None:
    ended = equipped.run("run_7b.sh", **knobs)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert fix in ended.stderr
    assert not any("train" in call for call in equipped.calls())


def test_gpus_without_an_environment_name_its_set_up(clone: Checkout) -> None:
    clone.fake("nvidia-smi", FAKE_NVIDIA_SMI)
    ended = clone.run("run_7b.sh", FAKE_GPUS="8", PATH=f"{clone.commands}:/usr/bin:/bin")
    assert ended.returncode == 2
    assert "setup_gpu.sh" in ended.stderr


def test_models_data_checks_training_export_in_this_order(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", "trainer.save_freq=10", FAKE_GPUS="8")
    assert ended.returncode == 0, ended.stderr
    assert equipped.steps() == [
        "hf download", "hf download", "medix config", "medix prepare", "medix preflight", "medix train",
        "medix export", "medix report",
    ]  # fmt: skip
    judge, model = (call.split()[2] for call in equipped.calls()[:2])
    assert (judge, model) == ("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen2.5-VL-7B-Instruct")
    prepare = next(call for call in equipped.calls() if call.startswith("medix prepare"))
    assert f"--model hub/{model} --max-prompt-tokens 9 --min-pixels 1 --max-pixels 2" in prepare
    train = next(call for call in equipped.calls() if call.startswith("medix train"))
    assert f"actor_rollout_ref.model.path=hub/{model}" in train
    assert f"reward.reward_model.model_path=hub/{judge}" in train
    assert train.endswith("trainer.save_freq=10")


def test_data_that_is_there_and_a_models_folder_are_used_as_they_are(equipped: Checkout) -> None:
    for name in ("data", "model"):
        (equipped.root / name).mkdir()
    (equipped.root / "data" / "manifest.json").write_text("{}")
    knobs = {"FAKE_GPUS": "8", "MODEL": "model", "JUDGE_URL": "http://judge:8000", "EXPORT": "0"}
    assert equipped.run("run_2b.sh", **knobs).returncode == 0
    assert equipped.steps() == ["medix config", "medix preflight", "medix train", "medix report"]


def test_a_failed_preflight_starts_no_training(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", FAILS="preflight")
    assert ended.returncode == 2
    assert equipped.steps()[-1] == "medix preflight"


def test_a_local_judge_shares_the_trainers_gpus_and_ends_with_the_run(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", JUDGE="local")
    assert ended.returncode == 0, ended.stderr
    serve = next(call for call in equipped.calls() if call.startswith("medix serve judge"))
    assert "--tensor-parallel-size 2" in serve
    assert serve.endswith("-- --gpu-memory-utilization 0.12")
    assert "gpus 0,1" in equipped.calls()
    train = next(call for call in equipped.calls() if call.startswith("medix train"))
    assert "hardware=gpu_8" in train  # all eight train, with the released batch
    assert "medix.scorer.judge.urls=[http://127.0.0.1:4242] medix.scorer.judge.model=served" in train
    steps = equipped.steps()
    assert steps.index("medix train") < steps.index("judge stopped") < steps.index("medix export")


def test_a_local_judge_that_does_not_come_up_ends_the_script(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", JUDGE="local", JUDGE_DIES="1")
    assert ended.returncode == 2
    assert "expected a judge" in ended.stderr
    assert "medix preflight" not in equipped.steps()


def test_a_local_judge_is_stopped_when_training_fails(equipped: Checkout) -> None:
    assert equipped.run("run_7b.sh", FAKE_GPUS="8", JUDGE="local", FAILS="train").returncode == 2
    assert equipped.steps()[-1] == "judge stopped"


def test_a_signal_to_the_script_reaches_the_training_which_ends_in_its_own_time(equipped: Checkout) -> None:
    """Slurm warns the script before a job's end."""
    process = equipped.start("run_7b.sh", FAKE_GPUS="8", JUDGE="local", TRAINS_LONG="1")
    limit = time.monotonic() + 30
    while "train waits" not in equipped.calls():
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert equipped.calls()[-2:] == ["train saved", "judge stopped"]


def test_evaluation_asks_both_models_with_a_judge_of_its_own(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", EXPORT="0", EVAL="1", EVAL_TASKS="vlm")
    assert ended.returncode == 0, ended.stderr
    runs = [call for call in equipped.calls() if call.startswith("medix eval run")]
    assert ["hub/Qwen/Qwen2.5-VL-7B-Instruct" in runs[0], "outputs/medix_7b/export" in runs[1]] == [True, True]
    assert all("--judge-url http://127.0.0.1:4242 --judge-model served" in run for run in runs)
    assert "gpus 1" in equipped.calls()
    assert equipped.steps()[-3:] == ["medix eval", "judge stopped", "medix report"]
