"""The launcher with stand-ins for `medix`, `hf` and `nvidia-smi`: what is started, in which order, and with what."""

from __future__ import annotations

import shlex
import time

import pytest

from tests.recipes.launcher import Checkout, parse

pytestmark = pytest.mark.slow


def test_models_data_checks_training_export_in_this_order(equipped: Checkout) -> None:
    """The configuration is checked before 47 GB are fetched for it."""
    ended = equipped.run("run_7b.sh", "trainer.save_freq=10", FAKE_GPUS="8")
    assert ended.returncode == 0, ended.stderr
    assert equipped.steps() == [
        "medix config", "medix preflight", "hf download", "hf download", "medix prepare", "medix preflight",
        "medix train", "medix export", "medix report",
    ]  # fmt: skip
    early, late = (call for call in equipped.calls() if call.startswith("medix preflight"))
    assert early.startswith("medix preflight --config-name medix_7b --config-only -- algorithm=")
    assert "--config-only" not in late
    model, judge = (call.split()[2] for call in equipped.calls() if call.startswith("hf"))
    assert (model, judge) == ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-4B-Instruct-2507")
    assert f"model.path='{model}'" in early  # its name; the folder is known once it is there
    prepare = next(call for call in equipped.calls() if call.startswith("medix prepare"))
    assert f"--model hub/{model} --max-prompt-tokens 9 --min-pixels 1 --max-pixels 2" in prepare
    settings = equipped.settings("train")
    assert settings["actor_rollout_ref.model.path"] == f"hub/{model}"
    assert settings["reward.reward_model.model_path"] == f"hub/{judge}"
    assert list(settings)[-1] == "trainer.save_freq"


def test_data_that_is_there_and_a_models_folder_are_used_as_they_are(equipped: Checkout) -> None:
    for name in ("data", "model"):
        (equipped.root / name).mkdir()
    (equipped.root / "data" / "manifest.json").write_text("{}")
    knobs = {"FAKE_GPUS": "8", "MODEL": "model", "JUDGE_URL": "http://judge:8000", "EXPORT": "0"}
    assert equipped.run("run_2b.sh", **knobs).returncode == 0
    assert equipped.steps() == ["medix config", "medix preflight", "medix preflight", "medix train", "medix report"]


@pytest.mark.parametrize(
    ("fails", "last"),
    [
        ("preflight --config-name medix_7b --config-only", ["medix config", "medix preflight"]),
        ("preflight --config-name medix_7b --", ["medix prepare", "medix preflight"]),
    ],
    ids=["of the configuration: nothing is fetched", "of everything: nothing is trained"],
)
def test_a_failed_preflight_ends_the_script(equipped: Checkout, fails: str, last: list[str]) -> None:
    assert equipped.run("run_7b.sh", FAKE_GPUS="8", FAILS=fails).returncode == 2
    assert equipped.steps()[-2:] == last
    assert ("hf download" in equipped.steps()) == ("medix prepare" in last)


HARD = {
    "RUN": "outputs/lr=1e-6",
    "MODEL": "/m/my model (v2)",
    "DATA": "a(b),c",
    "JUDGE_URL": "http://a:1/v1,http://b:2",
    "JUDGE_MODEL": "14",
    "EMBEDDER": "it's [one]",
}


def test_a_knobs_text_reaches_hydra_as_it_is(equipped: Checkout) -> None:
    """Unquoted, each of these is grammar to Hydra, or another type."""
    shown = equipped.run("run_7b.sh", DRY_RUN="1", **HARD)
    assert shown.returncode == 0, shown.stderr
    train = next(shlex.split(line) for line in shown.stdout.splitlines() if line.startswith("# medix train"))
    settings = parse(train[train.index("--") + 1 :])
    assert {key: settings[key] for key in settings if key.split(".")[0] in ("medix", "actor_rollout_ref")} == {
        "medix.scorer.judge.urls": ["http://a:1/v1", "http://b:2"],
        "medix.scorer.judge.model": "14",
        "medix.run_dir": "outputs/lr=1e-6",
        "actor_rollout_ref.model.path": "/m/my model (v2)",
        "actor_rollout_ref.rollout.seed": 1,
        "medix.data_dir": "a(b),c",
        "medix.scorer.embedder.model": "it's [one]",
    }
    assert settings["trainer.logger"] == ["console", "file"]


def test_the_cpu_recipes_texts_and_adapters_reach_hydra(equipped: Checkout) -> None:
    assert equipped.run("run_cpu.sh", DRY_RUN="1", LORA_RANK="4", **HARD).returncode == 0
    settings = equipped.settings("config")
    expected = {
        "medix.run_dir": "outputs/lr=1e-6",
        "data.train_files": "a(b),c/train.parquet",
        "actor_rollout_ref.model.path": "/m/my model (v2)",
        "medix.scorer.judge.model": "14",
        "lora": "adapter",
        "actor_rollout_ref.model.lora_rank": 4,
        "actor_rollout_ref.actor.optim.lr": 3e-3,
    }
    assert {key: settings[key] for key in expected} == expected


@pytest.mark.parametrize(("rank", "lora"), [("", False), ("0", False), ("16", True)])
@pytest.mark.parametrize("script", ["run_7b.sh", "run_cpu.sh"])
def test_a_rank_of_0_trains_all_weights_at_their_own_rate(
    equipped: Checkout, script: str, rank: str, lora: bool
) -> None:
    assert equipped.run(script, DRY_RUN="1", LORA_RANK=rank).returncode == 0
    assert ("lora" in equipped.settings("config")) == lora


def test_a_local_judge_shares_the_trainers_gpus_and_ends_with_the_run(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", JUDGE="local")
    assert ended.returncode == 0, ended.stderr
    serve = next(call for call in equipped.calls() if call.startswith("medix serve judge"))
    assert "--tensor-parallel-size 2" in serve
    assert serve.endswith("-- --gpu-memory-utilization 0.12")
    assert "gpus 0,1" in equipped.calls()
    settings = equipped.settings("train")
    assert settings["hardware"] == "gpu_8"  # all eight train, with the released batch
    assert settings["medix.scorer.judge.urls"] == ["http://127.0.0.1:4242"]
    assert settings["medix.scorer.judge.model"] == "served"
    steps = equipped.steps()
    assert steps.index("medix train") < steps.index("judge stopped") < steps.index("medix export")


def test_a_judges_gpus_are_positions_among_the_visible_ones(equipped: Checkout) -> None:
    """On a shared machine 0 and 1 are somebody else's: the judge of the run, then the models and their own judge."""
    knobs = {"FAKE_GPUS": "8", "CUDA_VISIBLE_DEVICES": "4,5,6,7", "GPUS": "4", "JUDGE": "local", "EVAL": "1"}
    assert equipped.run("run_7b.sh", **knobs).returncode == 0
    gpus = [call for call in equipped.calls() if call.startswith("gpus")]
    assert gpus == ["gpus 4,5", "gpus 5", "gpus 4", "gpus 4", "gpus 4,5,6,7"]  # the last compares, and uses none


def test_a_local_judge_that_does_not_come_up_ends_the_script(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", JUDGE="local", JUDGE_DIES="1")
    assert ended.returncode == 2
    assert "expected a judge" in ended.stderr
    assert "medix train" not in equipped.steps()


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
    assert equipped.calls()[-2:] == ["train ended", "judge stopped"]


def test_evaluation_asks_both_models_with_a_judge_of_its_own(equipped: Checkout) -> None:
    ended = equipped.run("run_7b.sh", FAKE_GPUS="8", EXPORT="0", EVAL="1", EVAL_TASKS="vlm")
    assert ended.returncode == 0, ended.stderr
    runs = [call for call in equipped.calls() if call.startswith("medix eval run")]
    assert ["hub/Qwen/Qwen2.5-VL-7B-Instruct" in runs[0], "outputs/medix_7b/export" in runs[1]] == [True, True]
    assert all("--judge-url http://127.0.0.1:4242 --judge-model served" in run for run in runs)
    assert "gpus 1" in equipped.calls()
    # Its judge is fetched with the others: a name that is not there is not found out after the training.
    downloads = [index for index, step in enumerate(equipped.steps()) if step == "hf download"]
    assert len(downloads) == 3
    assert downloads[-1] < equipped.steps().index("medix train")
    assert [step for step in equipped.steps() if "gpus" not in step][-3:] == [
        "medix eval", "judge stopped", "medix report",
    ]  # fmt: skip
