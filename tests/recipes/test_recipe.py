"""`medix recipe` with a runner that only writes down: what is started, in which order, and what is refused before."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from medix.errors import ConfigError
from medix_verl.preflight.checks import run_checks
from medix_verl.recipe import stages
from medix_verl.recipe.hardware import choose_hardware
from medix_verl.recipe.knobs import quoted, read_knobs
from medix_verl.recipe.stages import MEDIX, Run, Runner
from medix_verl.run_config import compose_config
from medix_verl.training.record import write_record
from tests.recipes.conftest import Recorder

pytestmark = pytest.mark.slow  # Hydra composes veRL's whole configuration
Launch = Callable[..., Recorder]
DEAD, URL = "127.0.0.1:1", "http://judge:8000"  # nothing listens on port 1


def test_models_data_checks_training_export_in_this_order(launch: Launch) -> None:
    """The configuration is checked before 47 GB are fetched for it."""
    recorder = launch("medix_7b", "trainer.save_freq=10")
    model, judge = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-4B-Instruct-2507"
    assert recorder.steps() == [
        "medix preflight", f"fetch {model}", f"fetch {judge}", "medix prepare", "medix preflight", "medix train",
        "medix export", "medix report",
    ]  # fmt: skip
    early, late = (words for words, _ in recorder.calls if words[1] == "preflight")
    assert ("--config-only" in early, "--config-only" in late) == (True, False)
    prepare = " ".join(recorder.of("medix prepare")[0])
    assert f"--model hub/{model} --max-prompt-tokens 4352 --min-pixels 262144 --max-pixels 3145728" in prepare
    settings = recorder.settings("medix train")
    assert settings["actor_rollout_ref.model.path"] == f"hub/{model}"
    assert settings["reward.reward_model.model_path"] == f"hub/{judge}"
    assert list(settings)[-1] == "trainer.save_freq"  # the user's own overrides come last and win


def test_data_that_is_there_and_a_models_folder_are_used_as_they_are(launch: Launch, tmp_path: Path) -> None:
    for name in ("data", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/manifest.json").write_text("{}")
    recorder = launch("medix_2b", MODEL="model", DATA="data", JUDGE_URL=URL, EXPORT="0")
    assert recorder.steps() == ["medix preflight", "fetch model", "medix preflight", "medix train", "medix report"]


def test_the_papers_embedder_is_fetched_or_asked_where_it_is_served(launch: Launch) -> None:
    """335 million parameters on the scorer's CPU take minutes a step; EMBEDDER_URL puts them on a GPU."""
    name = "abhinand/MedEmbed-large-v0.1"
    recorder = launch("medix_7b", REWARD="paper")
    assert f"fetch {name}" in recorder.steps()
    assert recorder.settings("medix train")["medix.scorer.embedder.model"] == f"hub/{name}"
    recorder = launch("medix_7b", REWARD="paper", EMBEDDER_URL="http://e:1,http://f:2")
    assert f"fetch {name}" not in recorder.steps()
    settings = {key.lstrip("+"): value for key, value in recorder.settings("medix train").items()}
    assert settings["medix.scorer.embedder.urls"] == ["http://e:1", "http://f:2"]
    assert settings["medix.scorer.embedder.kind"] == "endpoint"  # the model's name is the preset's
    assert "medix.scorer.embedder.model" not in settings


@pytest.mark.parametrize(
    ("fails", "last"),
    [("preflight --config-name medix_7b --config-only", "medix preflight"), ("medix train", "medix train")],
)
def test_a_stage_that_fails_ends_the_run(launch: Launch, fails: str, last: str) -> None:
    with pytest.raises(typer.Exit) as ended:
        launch("medix_7b", fails=fails)
    assert (ended.value.exit_code, launch.recorder.steps()[-1]) == (2, last)  # type: ignore[attr-defined]


HARD = {
    "RUN": "outputs/lr=1e-6", "MODEL": "/m/my model (v2)", "DATA": "a(b),c", "JUDGE_URL": "http://a:1/v1,http://b:2",
    "JUDGE_MODEL": "14", "EMBEDDER": "it's [one]\\",
}  # fmt: skip


def test_a_knobs_text_reaches_hydra_as_it_is(launch: Launch, tmp_path: Path) -> None:
    """Unquoted, each of these is grammar to Hydra, or another type."""
    (tmp_path / HARD["DATA"]).mkdir()
    (tmp_path / HARD["DATA"] / "manifest.json").write_text("{}")
    for recipe, rate in (("medix_7b", None), ("medix_cpu", 3e-3)):
        settings = launch(recipe, LORA_RANK="4", **HARD).settings("medix train")
        expected = {
            "medix.scorer.judge.urls": ["http://a:1/v1", "http://b:2"], "medix.scorer.judge.model": "14",
            "medix.run_dir": HARD["RUN"], "medix.scorer.embedder.model": HARD["EMBEDDER"], "lora": "adapter",
            "trainer.logger": ["console", "file"],
            "actor_rollout_ref.model.path": "hub/" * (recipe == "medix_7b") + HARD["MODEL"],
        }  # fmt: skip
        assert {key: settings[key] for key in expected} == expected
        assert settings.get("actor_rollout_ref.actor.optim.lr") == rate
        data = "a(b),c" if recipe == "medix_7b" else "a(b),c/train.parquet"
        assert settings["medix.data_dir" if recipe == "medix_7b" else "data.train_files"] == data


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.save_freq=abc", "trainer.save_freq is 'abc', where 20 is usual"),
        ("actor_rollout_ref.rollout.n=eight", "'eight', where 8 is usual"),
        ("trainer.val_before_train=maybe", "'maybe', where True is usual"),
        ("+medix.reward.components.mine.path=x.py:f", ""),
        ("trainer.save_freq=null", ""),
    ],
)
def test_a_word_in_the_place_of_a_number_is_refused(override: str, says: str) -> None:
    if not says:
        compose_config("medix_cpu", [override])
        return
    with pytest.raises(ConfigError, match=re.escape(says)):
        compose_config("medix_cpu", [override])


@pytest.mark.parametrize(("text", "plain"), [("gspo", True), ("a/b-2.5", True), ("null", False), ("1e5", False)])
def test_only_what_needs_quotes_has_them(text: str, plain: bool) -> None:
    assert (quoted(text) == text) == plain


def test_a_local_judge_shares_the_trainers_gpus_and_ends_with_the_training(launch: Launch) -> None:
    """On a shared machine 0 and 1 are another user's: positions are among the visible ones."""
    knobs = {"JUDGE": "local", "EVAL": "1", "GPUS": "4", "CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    recorder = launch("medix_7b", **knobs)
    steps, served = recorder.steps(), [(words, there) for words, there in recorder.calls if words[0] == "bash"]
    (judge, where), (second, place) = served
    assert judge[-4:] == ["--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.12"]
    assert (where["CUDA_VISIBLE_DEVICES"], place["CUDA_VISIBLE_DEVICES"]) == ("4,5", "5")
    assert "hub/Qwen/Qwen3-14B" in second
    settings = recorder.settings("medix train")
    assert (settings["hardware"], settings["medix.scorer.judge.urls"]) == ("gpu_8", ["http://127.0.0.1:4242"])
    assert steps.index("medix train") < steps.index("judge ends") < steps.index("medix export")
    asked = [(words, there) for words, there in recorder.calls if words[:3] == ["medix", "eval", "run"]]
    assert [there["CUDA_VISIBLE_DEVICES"] for _, there in asked] == ["4", "4"]
    assert ["hub/Qwen/Qwen2.5-VL-7B-Instruct" in asked[0][0], "outputs/medix_7b/export" in asked[1][0]] == [True, True]
    # Every model is fetched before the training: a name that does not exist is not found out after it.
    assert max(index for index, step in enumerate(steps) if step.startswith("fetch")) < steps.index("medix train")


def test_the_cpu_recipe_from_the_tiny_model_to_the_summary(launch: Launch) -> None:
    recorder = launch("medix_cpu", STEPS="2")
    assert [" ".join(words[1:3]) for words, _ in recorder.calls if words[0] != "judge ends"] == [
        "-m examples.tiny_vlm", "prepare sample", "-m examples.rule_judge", "preflight --config-name",
        "train --config-name", "export outputs/demo", "eval run", "eval run", "eval compare", "report outputs/demo",
        "summary outputs/demo",
    ]  # fmt: skip
    settings = recorder.settings("medix train")
    assert (settings["trainer.total_training_steps"], settings["data.seed"]) == (2, 0)
    assert settings["medix.scorer.judge.urls"] == ["http://127.0.0.1:4242"]


REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "no GPU": ("medix_7b", {"gpus": 0}, "takes 8 NVIDIA GPU(s), and there are none", "`make demo`"),
    "24 GB": ("medix_7b", {"gpus": 0, "HARDWARE": "gpu_24gb", "JUDGE_URL": URL}, "takes 1 NVIDIA", "`make demo`"),
    "two nodes": ("medix_7b", {"gpus": 0, "NNODES": "2"}, "RAY_ADDRESS names no", "ray_cluster.sh"),
    "a cluster that is gone": ("medix_7b", {"gpus": 0, "RAY_ADDRESS": DEAD}, "gives no answer", "`make demo`"),
    "an address that is a command": (
        "medix_7b", {"gpus": 0, "RAY_ADDRESS": "x';touch PWNED;':1"}, "gives no answer", "unset RAY_ADDRESS",
    ),
    "seven and the judge's two": ("medix_7b", {"GPUS": "7"}, "takes 9 NVIDIA", "HARDWARE=gpu_8 GPUS=8 JUDGE="),
    "24 GB, no judge": ("medix_7b", {"HARDWARE": "gpu_24gb"}, "has no judge", "serve.sh judge"),
    "24 GB, all weights": ("medix_7b", {"HARDWARE": "gpu_24gb", "LORA_RANK": "0"}, "no room", "LORA_RANK out"),
    "the 30B on two nodes": ("medix_30b", {"NNODES": "2"}, "does not fit the rollout engines", "HARDWARE=gpu_8"),
    "recipe, typo": ("medix_7", {}, "no recipe 'medix_7'", "Did you mean 'medix_7b'?"),
    "key, typo": (
        "medix_cpu", {"override": "trainer.total_training_step=3"}, "Could not override",
        "Did you mean trainer.total_training_steps?",
    ),
    "an export of nothing": ("medix_7b", {"override": "trainer.save_freq=-1"}, "saves no checkpoint", "EXPORT=0"),
    "an export of nothing, CPU": ("medix_cpu", {"override": "trainer.save_freq=0"}, "saves no checkpoint", "EXPORT=0"),
    "group's choice, typo": ("medix_cpu", {"override": "algorithm=gsop"}, "Available options in 'alg", "Correct the"),
    "judge, typo": ("medix_7b", {"JUDGE": "hosted"}, "'hosted'", "colocated, local or external"),
    "two judges": ("medix_7b", {"JUDGE": "local", "JUDGE_URL": URL}, "JUDGE=local starts", "Leave one"),
    "two judges, CPU": ("medix_cpu", {"JUDGE": "colocated", "JUDGE_URL": URL}, "JUDGE=colocated", "Leave one"),
    "local judge, too few listed": (
        "medix_7b", {"JUDGE": "local", "GPUS": "1", "CUDA_VISIBLE_DEVICES": "3"}, "lies outside", "JUDGE_DEVICES",
    ),
    "local judge, typo": ("medix_7b", {"JUDGE_DEVICES": "0:1"}, "'0:1'", "JUDGE_DEVICES"),
    "algorithm, a path": ("medix_7b", {"ALGO": "../hardware/cpu"}, "'../hardware/cpu'", "dapo, grpo"),
    "algorithm, a list": ("medix_cpu", {"ALGO": "grpo,gspo"}, "'grpo,gspo'", "dapo, grpo"),
    "hardware, a path": ("medix_7b", {"HARDWARE": "../lora/adapter"}, "'../lora/adapter'", "gpu_24gb"),
    "reward, a path": ("medix_7b", {"REWARD": "../judge/external"}, "'../judge/external'", "paper, strict"),
    "an interpolation": ("medix_7b", {"RUN": "${oc.env:HF_TOKEN}"}, "RUN holds", "taken as it is"),
    **{
        f"{name}={value}": ("medix_7b", {name: value}, f"{name} is {value!r}", f"Correct {name}")
        for name, value in [
            ("LORA_RANK", "r64"), ("LORA_RANK", "-1"), ("NNODES", "two"), ("GPUS", "all"), ("GPUS", "0"),
            ("STEPS", "1e3"), ("SEED", "x"), ("DRY_RUN", "true"), ("EXPORT", "yes"), ("EVAL", "true"),
        ]
    },
    "data without a manifest": ("medix_7b", {"DATA": "mine"}, "no manifest.json", "medix prepare medix_rl --out mine"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "knobs", "told"),
    [
        ("medix_cpu", {"ALGO": "gspo"}, "loss_mode was vanilla, is gspo"),
        ("medix_cpu", {"SEED": "7"}, "data.seed was 0, is 7"),
        ("medix_cpu", {"STEPS": "20"}, "has 40 steps, more than the 20"),
        ("medix_7b", {"MODEL": "someone/else", "REWARD": "strict", "LORA_RANK": "8"}, "model.lora_rank was 0, is 8"),
    ],
)
def test_a_finished_run_of_other_settings_is_refused_before_anything_is_built_or_fetched(
    recipe: str,
    knobs: dict[str, str],
    told: str,
    launch: Launch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`ALGO=gspo bash recipes/medix/run_cpu.sh` after `make demo`."""
    usual = read_knobs(recipe, {})
    chosen = usual if recipe == "medix_cpu" else choose_hardware(recipe, usual)
    write_record(compose_config(recipe, Run(recipe, chosen).overrides()))
    (tmp_path / usual["RUN"] / "metrics.jsonl").write_text('{"step": 40, "data": {}}\n')
    with pytest.raises(ConfigError, match=told):
        launch(recipe, **knobs)
    assert launch.recorder.calls == []  # type: ignore[attr-defined]
    monkeypatch.setenv("DRY_RUN", "1")
    stages.launch(recipe, [])
    assert "## it would be refused" in capsys.readouterr().out


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_run_is_refused_before_anything_starts_with_its_remedy(launch: Launch, case: str) -> None:
    recipe, knobs, problem, fix = REFUSED[case]
    overrides = [knobs["override"]] if "override" in knobs else []
    with pytest.raises(ConfigError) as refused:
        launch(recipe, *overrides, **{name: value for name, value in knobs.items() if name != "override"})
    assert "search path" not in refused.value.problem
    assert problem in refused.value.problem
    assert fix in refused.value.fix
    assert launch.recorder.calls == []  # type: ignore[attr-defined]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(("nodes", "gpus", "accepted"), [("2", 8, False), ("2", 16, True), ("1", 8, True)])
def test_a_clusters_gpus_are_counted_before_any_download(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, nodes: str, gpus: int, accepted: bool
) -> None:
    """Seven and one on each of two nodes: 16."""
    monkeypatch.setattr("medix_verl.recipe.hardware.cluster_gpus", lambda address: gpus)
    if accepted:
        assert "medix train" in launch("medix_7b", RAY_ADDRESS="10.0.0.1:6379", NNODES=nodes).steps()
        return
    with pytest.raises(ConfigError, match=r"takes 16 GPU\(s\), and the cluster of RAY_ADDRESS has 8") as refused:
        launch("medix_7b", RAY_ADDRESS="10.0.0.1:6379", NNODES=nodes)
    assert "ray_cluster.sh worker" in refused.value.fix


def test_a_listener_that_is_no_ray_is_not_waited_for(launch: Launch) -> None:
    """The real Ray asks on: for 23 s to minutes, seen here."""
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ConfigError, match="gives no answer"):
        launch("medix_7b", gpus=0, RAY_ADDRESS=f"127.0.0.1:{listener.getsockname()[1]}")
    assert time.monotonic() - start < 30


ADVISED = [  # recipe, GPUs that are there, how many of them the advice takes, its recipe
    ("medix_7b", 1, 1, "medix_3b"), ("medix_7b", 2, 2, "medix_3b"), ("medix_2b", 3, 2, "medix_2b"),
    ("medix_8b", 5, 4, "medix_8b"), ("medix_7b", 7, 4, "medix_7b"),
    ("medix_30b", 7, 4, "medix_8b"), ("medix_30b", 1, 1, "medix_3b"),  # the 30B's engines take eight
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "found", "taken", "advised"), ADVISED)
def test_the_advice_for_fewer_gpus_can_be_followed(
    launch: Launch, recipe: str, found: int, taken: int, advised: str
) -> None:
    """Copied as it stands it composes, divides and fits: 3, 5, 6 and 7 trainers divide no 640 responses."""
    with pytest.raises(ConfigError) as refused:
        launch(recipe, gpus=found)
    *knobs, _bash, script = shlex.split(re.findall(r"`(HARDWARE=gpu_[^`]*)`", refused.value.fix)[0])
    assert script == f"recipes/medix/run_{advised.removeprefix('medix_')}.sh"
    recorder = launch(advised, gpus=found, **dict(knob.split("=", 1) for knob in knobs))
    overrides = recorder.calls[0][0][recorder.calls[0][0].index("--") + 1 :]
    config = compose_config(advised, overrides)
    checks = run_checks(config, 24.0 if taken == 1 else 80.0, config_only=True)
    wanted = {"batch sizes", "rollout engines", "GPU memory", "adapters", "lengths"}
    status = {check.name: (check.status, check.found) for check in checks if check.name in wanted}
    assert (status.keys(), config.trainer.n_gpus_per_node) == (wanted, taken)
    assert "fail" not in {state for state, _ in status.values()}, status


WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print(1, flush=True)
time.sleep(60)
"""


def test_a_signal_reaches_the_training_which_ends_in_its_own_time(tmp_path: Path) -> None:
    """Slurm warns before a job's end; `medix train` then saves the step under way and ends with 130."""
    code = f"import sys; from medix_verl.recipe.stages import Runner; Runner().call([sys.executable, '-c', {WAITS!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert "Exit: 130" in said.replace("typer._click.exceptions.", "").replace("click.exceptions.", "")


def test_a_dry_run_shows_commands_that_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    Runner(dry=True).call([MEDIX, "train", "--", "a='b c'"], {"X": "1 2"})
    assert shlex.split(capsys.readouterr().out)[1:] == ["env", "X=1 2", "medix", "train", "--", "a='b c'"]


def test_a_judge_that_does_not_start_is_an_error_and_one_that_does_ends_with_the_block(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did not start"), Runner().serve(["false"]):
        pass
    script = "echo export JUDGE_URL=http://127.0.0.1:7 JUDGE_MODEL=m; exec sleep 60"
    with Runner().serve(["bash", "-c", script]) as url:
        assert url == "http://127.0.0.1:7"


def test_the_screen_has_the_estimate(composed: Callable[..., Any], tmp_path: Path) -> None:
    from medix_verl.recipe.figures import run_figures
    from medix_verl.recipe.screen import describe

    lines = dict(describe(composed("medix_7b")))
    assert lines["algorithm"] == "GSPO: clip 0.0003 / 0.0004, no KL term"
    assert lines["GPUs"].startswith("6 to train + 2 for the judge")
    # 51,335 // 504 x 2 epochs = 202 steps; a step has 2,520 x 1,100 tokens. Rollout 1.512e6 x 8.29e9 / (6 x 25e12) =
    # 84 s, training 10 x 8.29e9 x 2.772e6 / (6 x 989e12 x 0.3) = 129 s, 20 s, a checkpoint of 99.5 GB each 10 steps
    # 6.6 s, validation 2,451 x 600 / 5 at the same rate: 16 s. Together 256 s.
    figures = run_figures(composed("medix_7b"))
    assert figures is not None
    assert (figures.steps, round(figures.tokens / 1e6)) == (202, 560)
    assert figures.step_s == pytest.approx(256, abs=1)
    assert figures.checkpoints_gb == pytest.approx(99.5 * 21, rel=1e-3)
    data = tmp_path / "train.parquet"
    manifest = {"splits": {"train": {"rows": 5040, "n_tokens": {"histogram": {"<= 400": 5040}}}, "val": {"rows": 9}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    small = run_figures(composed("medix_7b", f"data.train_files={data}"))
    assert small is not None
    assert (small.steps, small.tokens) == (20, 20 * 2520 * (300 + 600))


def test_a_gpu_run_keeps_the_users_settings_but_not_expandable_segments(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    launch("medix_7b")
    assert os.environ["VLLM_NO_USAGE_STATS"] == "0"
    assert not {"CUDA_DEVICE_MAX_CONNECTIONS", "PYTORCH_ALLOC_CONF"} & os.environ.keys()
    assert "expandable segments" in capsys.readouterr().err
