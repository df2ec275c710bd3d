"""What a script's name says is what runs: each one dry, with every composed value from the installed veRL's schema."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from medix_verl.recipe.knobs import KNOBS
from tests.recipes.checkout import Checkout

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "medix"
MODELS = {
    "2b": "Qwen/Qwen3-VL-2B-Instruct",
    "3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "8b": "Qwen/Qwen3-VL-8B-Instruct",
    "30b": "Qwen/Qwen3-VL-30B-A3B-Instruct",
}


def start(size: str, *overrides: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", f"recipes/medix/run_{size}.sh", *overrides]
    kept = {name: value for name, value in os.environ.items() if name not in KNOBS}
    return subprocess.run(command, cwd=ROOT, env={**kept, **knobs}, capture_output=True, text=True, timeout=100)


def dry_run(size: str, *overrides: str, **knobs: str) -> tuple[dict[str, Any], list[str], list[str]]:
    """The configuration, the steps (without their `# `), and the lines of the screen that a script shows."""
    shown = start(size, *overrides, DRY_RUN="1", **knobs)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    steps = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    return yaml.safe_load(shown.stdout), steps, [line for line in lines if line.startswith("## ")]


def test_every_script_of_the_folder_is_looked_at() -> None:
    assert {path.stem for path in RECIPES.glob("run_*.sh")} == {f"run_{size}" for size in [*MODELS, "cpu"]}


@pytest.mark.parametrize("size", [*MODELS, "cpu"])
def test_a_script_is_short_and_shows_knobs_that_there_are(size: str) -> None:
    script = (RECIPES / f"run_{size}.sh").read_text()
    assert set(re.findall(r"([A-Z_]+)=\$\{\1:-", script)) <= KNOBS.keys()
    assert script.count("\n") <= 20
    assert script.endswith(f'source recipes/medix/lib/start.sh medix_{size} "$@"\n')
    if size != "cpu":
        recipe = yaml.safe_load((RECIPES / f"config/medix_{size}.yaml").read_text())
        chosen = {name: value for line in recipe["defaults"] if isinstance(line, dict) for name, value in line.items()}
        assert re.findall(r"^export MODEL=\$\{MODEL:-(\S+)\}", script, re.MULTILINE) == [MODELS[size]]
        assert re.findall(r"^export ALGO=\$\{ALGO:-(\S+)\}", script, re.MULTILINE) == [chosen["override algorithm"]]


@pytest.mark.slow
@pytest.mark.parametrize("size", MODELS)
def test_what_its_name_says_is_what_runs(size: str) -> None:
    config, steps, screen = dry_run(size)
    assert config["actor_rollout_ref"]["model"]["path"] == MODELS[size]
    assert config["trainer"]["experiment_name"] == f"medix_{size}"
    assert config["medix"]["reward"]["preset"] == "strict"
    # Eight GPUs suffice: six train, two judge.
    judge = config["reward"]["reward_model"]
    assert (config["trainer"]["n_gpus_per_node"], judge["enable"], judge["n_gpus_per_node"]) == (6, True, 2)
    assert [step.split()[:2] for step in steps] == [
        ["medix", name] for name in ("preflight", "prepare", "preflight", "train", "export", "report")
    ]
    assert not (ROOT / f"outputs/medix_{size}").exists()
    # One screen: what a person wants to see before eight GPUs are taken.
    named = {line[3:].split("  ")[0] for line in screen}
    wanted = ("model", "algorithm", "learning rate", "batch", "responses", "lengths", "reward", "judge", "GPUs")
    assert {*wanted, "memory", "main memory", "checkpoints", "estimate"} <= named
    assert len(screen) <= 30


@pytest.mark.slow
def test_the_knobs_reach_the_configuration_and_overrides_win(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    knobs = {
        "RUN": str(tmp_path / "run"), "MODEL": "/models/mine", "ALGO": "grpo", "REWARD": "paper", "DATA": str(tmp_path),
        "JUDGE_URL": "http://a:1,http://b:2", "JUDGE_MODEL": "their-judge", "LORA_RANK": "32", "NNODES": "2",
        "STEPS": "7", "SEED": "4", "EXPORT": "0", "EVAL": "0", "LOGGER": "console,wandb",
    }  # fmt: skip
    config, steps, _ = dry_run("8b", "data.seed=9", "+medix.note=two words", **knobs)
    actor = config["actor_rollout_ref"]["actor"]
    # The released 8B GRPO is chosen by its algorithm; the values of each: test_against_the_paper.py.
    assert (actor["use_kl_loss"], actor["kl_loss_coef"], actor["kl_loss_type"]) == (True, 0.01, "low_var_kl")
    assert config["medix"]["run_dir"] == str(tmp_path / "run")
    assert config["medix"]["reward"]["preset"] == "paper"
    assert config["medix"]["scorer"]["embedder"]["model"] == "abhinand/MedEmbed-large-v0.1"  # the released one
    assert config["medix"]["scorer"]["judge"]["urls"] == ["http://a:1", "http://b:2"]
    assert config["medix"]["scorer"]["judge"]["model"] == "their-judge"
    assert config["reward"]["reward_model"]["enable"] is False  # a JUDGE_URL is an external judge
    model = config["actor_rollout_ref"]["model"]
    assert (model["path"], model["lora_rank"], model["lora_alpha"]) == ("/models/mine", 32, 32)
    assert (actor["optim"]["lr"], actor["ppo_mini_batch_size"]) == (1e-5, 128)
    assert config["data"]["train_files"] == f"{tmp_path}/train.parquet"
    assert config["data"]["seed"] == 9  # overrides come last and win
    assert config["actor_rollout_ref"]["rollout"]["seed"] == 4
    trainer = config["trainer"]
    assert (trainer["nnodes"], trainer["n_gpus_per_node"], trainer["total_training_steps"]) == (2, 8, 7)
    assert trainer["logger"] == ["console", "wandb"]
    # DATA is used as it is, never made.
    assert [step.split()[1] for step in steps] == ["preflight", "preflight", "train", "report"]
    train = shlex.split(steps[2])  # a step is shown as a command that can be copied
    assert train[:4] == ["medix", "train", "--config-name", "medix_8b"]
    assert {"trainer.nnodes=2", "+medix.note=two words"} <= set(train)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "patch"), [("3b", 14), ("2b", 16)])
def test_one_gpu_of_24_gb_takes_adapters_short_prompts_and_a_judge_elsewhere(size: str, patch: int) -> None:
    config, steps, _ = dry_run(size, HARDWARE="gpu_24gb", JUDGE_URL="http://judge:8000")
    assert (config["trainer"]["n_gpus_per_node"], config["reward"]["reward_model"]["enable"]) == (1, False)
    assert config["actor_rollout_ref"]["model"]["lora_rank"] == 64
    prepare = next(step for step in steps if step.startswith("medix prepare"))
    assert "--max-prompt-tokens 2048" in prepare
    assert "--max-pixels 1003520" in prepare  # 1,280 tokens of 28 x 28 pixels
    # Its own folder for each size of patch: the token counts of one family are not the other's.
    assert config["medix"]["data_dir"] == f"data/medix_rl_patch_{patch}_small"
    assert config["medix"]["data_dir"] in prepare


@pytest.mark.slow
def test_without_a_gpu_this_checkout_says_so_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    ended = start("7b", RUN=str(tmp_path / "run"), RAY_ADDRESS="x';touch PWNED;':1")
    assert (ended.returncode, list(tmp_path.iterdir()), (ROOT / "PWNED").exists()) == (2, [], False)
    ended = start("7b", RUN=str(tmp_path / "run"), CUDA_VISIBLE_DEVICES="")
    assert (ended.returncode, len(ended.stderr.splitlines()), list(tmp_path.iterdir())) == (2, 1, [])
    assert "make demo" in ended.stderr


@pytest.mark.slow
def test_without_an_environment_its_set_up_is_named(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", PATH=f"{equipped.commands}:/usr/bin:/bin")
    assert ended.returncode == 2
    assert "setup_gpu.sh" in ended.stderr
    assert "make demo" in ended.stderr


@pytest.mark.slow
def test_the_scripts_are_clean_bash() -> None:
    scripts = sorted(RECIPES.rglob("*.sh"))
    checked = subprocess.run(
        [str(ROOT / ".venv/bin/shellcheck"), "-x", *map(str, scripts)], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
