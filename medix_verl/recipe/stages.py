"""The stages of a run, in order. A dry run goes through the same stages and only names them."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import typer

from medix.errors import ConfigError
from medix.files import write_atomically
from medix.processes import child_environment
from medix_verl.preflight.model import hub_name
from medix_verl.recipe.hardware import check_gpus, choose_hardware, devices_at
from medix_verl.recipe.knobs import Knobs, quoted, quoted_list, read_knobs
from medix_verl.run_config import CONFIG_DIR, compose_config

ROOT = CONFIG_DIR.parents[2]
MEDIX = str(Path(sys.executable).with_name("medix"))
NONE: Mapping[str, str] = MappingProxyType({})
# veRL 0.9.1 and vLLM 0.24 on a GPU. Ray passes it on to the processes of this node, `medix train` to other nodes'.
GPU_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",  # nothing is reported from a hospital
    "HYDRA_FULL_ERROR": "1",
    # As in the released runs: symmetric-memory all-reduce keeps buffers that a sleeping engine does not give back.
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
}


@dataclass
class Runner:
    """Starts the commands of a run, or (`dry`) prints each as a line that can be copied."""

    dry: bool = False

    def call(self, command: Sequence[str], variables: Mapping[str, str] = NONE, tee: Path | None = None) -> None:
        """Run a command to its end; with `tee`, what it prints is also written to that file.

        SIGTERM, which Slurm sends before a job's end, is passed on: `medix train` then saves the step under way. A
        terminal's Ctrl-C reaches the child by itself.

        Raises:
            typer.Exit: it failed; with its exit code.
        """
        if self.dry:
            settings = [f"{name}={value}" for name, value in variables.items()]
            shown = ["medix" if word == MEDIX else "python" if word == sys.executable else word for word in command]
            print("#", shlex.join([*(["env", *settings] if settings else []), *shown]))
            return
        process = subprocess.Popen(command, env=child_environment(**variables), stdout=subprocess.PIPE if tee else None)
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            if tee and process.stdout:
                text = process.stdout.read().decode()
                print(text, end="", flush=True)
                write_atomically(tee, text)
            while (code := _wait(process)) is None:
                pass
        finally:
            signal.signal(signal.SIGTERM, before)
        if code:
            raise typer.Exit(code if code > 0 else 128 - code)

    def fetch(self, name: str, knob: str) -> str:
        """Return a local folder of a model: the folder itself, or what its hub name is downloaded to."""
        if self.dry or Path(name).is_dir():
            return name
        from huggingface_hub import snapshot_download

        print(f"fetching {name}", flush=True)
        try:
            return str(snapshot_download(name))
        except Exception as error:
            raise ConfigError(
                f"{knob}={name} is no folder, and can not be downloaded ({type(error).__name__}).",
                f"Correct it, or download it elsewhere and set {knob}=FOLDER.",
            ) from error

    @contextmanager
    def serve(self, command: Sequence[str], variables: Mapping[str, str] = NONE) -> Iterator[str]:
        """Start a server and yield the address that its first line names; it ends with the block."""
        if self.dry:
            self.call(command, variables)
            yield "http://127.0.0.1:8000"
            return
        process = subprocess.Popen(command, env=child_environment(**variables), stdout=subprocess.PIPE, text=True)
        try:
            first = process.stdout.readline() if process.stdout else ""
            url = next((word.split("=")[-1] for word in first.split() if "http://" in word), "")
            if not url:
                raise ConfigError(f"The judge did not start: {shlex.join(command)}", "See what it says above.")
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[Any]) -> int | None:
    try:
        return process.wait()
    except KeyboardInterrupt:
        return None


@dataclass
class Run:
    """One run of a recipe: its knobs, the overrides that follow the command, and the folders of its models."""

    recipe: str
    knobs: Knobs
    extra: list[str] = field(default_factory=list)
    runner: Runner = field(default_factory=Runner)
    folders: dict[str, str] = field(default_factory=dict)

    @property
    def on_cpu(self) -> bool:
        return self.recipe == "medix_cpu"

    def folder(self, knob: str) -> str:
        """Return the model of a knob: the folder it was downloaded to, or its name until then."""
        return self.folders.get(knob, self.knobs[knob])

    def overrides(self, judge_url: str = "") -> list[str]:
        """Return the Hydra overrides that the knobs stand for; the user's own come last and win."""
        knobs = self.knobs
        given = [f"medix.run_dir={quoted(knobs['RUN'])}", f"reward_preset={knobs['REWARD']}"]
        given.append(f"data.seed={knobs['SEED']}")
        if knobs["ALGO"]:
            # The released GRPO run has a KL term and a wider clip in force; plain `grpo` is the CPU demo's.
            plain = self.on_cpu or knobs["ALGO"] != "grpo"
            given.append(f"algorithm={knobs['ALGO'] if plain else 'grpo_kl'}")
        if model := self.folder("MODEL"):
            given.append(f"actor_rollout_ref.model.path={quoted(model)}")
        given += self._judge(judge_url or knobs["JUDGE_URL"])
        given += self._embedder()
        if knobs["LOGGER"]:
            given.append(f"trainer.logger={quoted_list(knobs['LOGGER'])}")
        if knobs["STEPS"]:
            # Also when two epochs are fewer.
            given += [f"trainer.total_training_steps={knobs['STEPS']}", "trainer.total_epochs=1000000"]
        if knobs.number("LORA_RANK") and knobs["HARDWARE"] != "gpu_24gb":
            given.append("+lora=adapter")
        if knobs.number("LORA_RANK"):
            given.append(f"actor_rollout_ref.model.lora_rank={knobs['LORA_RANK']}")
        given += self._of_the_cpu() if self.on_cpu else self._of_the_gpus()
        return [*given, *self.extra]

    def _judge(self, url: str) -> list[str]:
        judge, knobs = "medix.scorer.judge", self.knobs
        if knobs["JUDGE"] == "colocated":
            return ["judge=colocated", f"reward.reward_model.model_path={quoted(self.folder('JUDGE_MODEL'))}"]
        asked = [f"{judge}.urls={quoted_list(url)}"] if url else []
        return ["judge=external", *asked, f"{judge}.model={quoted(knobs['JUDGE_MODEL'])}"]

    def _embedder(self) -> list[str]:
        knobs, embedder = self.knobs, "medix.scorer.embedder"
        model = self.folder("EMBEDDER") or self.folders.get("preset's embedder", "")
        given = [f"{embedder}.model={quoted(model)}"] if model else []
        if knobs["EMBEDDER_URL"]:
            given += [f"{embedder}.kind=endpoint", f"++{embedder}.urls={quoted_list(knobs['EMBEDDER_URL'])}"]
            given.append(f"++{embedder}.extra.truncate_prompt_tokens=-1")
        return given

    def _of_the_cpu(self) -> list[str]:
        run, knobs = self.knobs["RUN"], self.knobs
        data = knobs["DATA"] or f"{run}/data"
        given = [f"data.{name}_files={quoted(f'{data}/{name}.parquet')}" for name in ("train", "val")]
        # Ten times the demo's rate, as adapters take.
        return [*given, *(["actor_rollout_ref.actor.optim.lr=3e-3"] if knobs.number("LORA_RANK") else [])]

    def _of_the_gpus(self) -> list[str]:
        knobs = self.knobs
        given = [f"hardware={knobs['HARDWARE']}", f"trainer.nnodes={knobs['NNODES']}"]
        given.append(f"actor_rollout_ref.rollout.seed={knobs['SEED']}")
        given += [f"medix.data_dir={quoted(knobs['DATA'])}"] if knobs["DATA"] else []
        return [*given, *([f"trainer.n_gpus_per_node={knobs['GPUS']}"] if knobs["GPUS"] else [])]

    def medix(self, command: str, *options: str, judge_url: str = "") -> None:
        """Call a sub-command that takes this run's configuration."""
        named = ["--config-name", self.recipe, *options]
        self.runner.call([MEDIX, command, *named, "--", *self.overrides(judge_url)])


def launch(recipe: str, extra: list[str], runner: Runner | None = None) -> None:
    """Carry out a recipe. What can be refused is refused first: knobs, then GPUs, then the configuration they make.

    Raises:
        ConfigError: naming what to change.
        typer.Exit: a stage failed; with its exit code.
    """
    knobs = read_knobs(recipe, os.environ)
    if recipe != "medix_cpu":
        knobs = choose_hardware(recipe, knobs)
        _set_environment()
    run = Run(recipe, knobs, extra, runner or Runner(dry=knobs.on("DRY_RUN")))
    if run.runner.dry:
        from medix_verl.recipe.screen import show
        from medix_verl.training.record import check_run_folder, settings_text

        config = compose_config(recipe, run.overrides())
        show(config, recipe)
        print(settings_text(config))
        try:
            check_run_folder(config, hub_name)
        except ConfigError as error:
            print(f"## it would be refused: {error}")
    (run_cpu if run.on_cpu else run_gpu)(run)


def _set_environment() -> None:
    os.environ.update({name: os.environ.get(name, value) for name, value in GPU_ENVIRONMENT.items()})
    # The released runs set 1, for Megatron's sake; veRL's own notes want it unset with FSDP2, whose gathers it queues.
    os.environ.pop("CUDA_DEVICE_MAX_CONNECTIONS", None)
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if "expandable_segments:True" in os.environ.get(name, ""):
            print(f"note: {name} is unset: vLLM's sleep mode refuses expandable segments", file=sys.stderr)
            del os.environ[name]


def run_gpu(run: Run) -> None:
    """Check, download, prepare, train, export and evaluate on GPUs."""
    knobs, runner = run.knobs, run.runner
    if not runner.dry:
        check_gpus(run.recipe, knobs)
    if knobs["JUDGE"] == "local":
        devices_at(knobs["JUDGE_DEVICES"])
    config = compose_config(run.recipe, run.overrides())
    _refuse_foreign_data(run, config)
    _refuse_run(run, config)
    run.medix("preflight", "--config-only")
    run.folders["MODEL"] = runner.fetch(str(config.actor_rollout_ref.model.path), "MODEL")
    if knobs["JUDGE"] != "external":
        run.folders["JUDGE_MODEL"] = runner.fetch(knobs["JUDGE_MODEL"], "JUDGE_MODEL")
    embedder = config.medix.scorer.embedder
    if embedder.kind == "sentence_transformers" and hub_name(str(embedder.model)):
        name = "EMBEDDER" if knobs["EMBEDDER"] else "preset's embedder"
        run.folders[name] = runner.fetch(str(embedder.model), "EMBEDDER")
    judge = run.folder("JUDGE_MODEL")
    if knobs.on("EVAL") and knobs["JUDGE"] != "external":
        run.folders["EVAL_JUDGE_MODEL"] = runner.fetch(knobs["EVAL_JUDGE_MODEL"], "EVAL_JUDGE_MODEL")
    if not knobs["DATA"] and (runner.dry or not (Path(config.medix.data_dir) / "manifest.json").is_file()):
        runner.call(_prepare(run, config))
    with _served(run, judge, knobs["JUDGE_MODEL"], needed=knobs["JUDGE"] == "local") as url:
        run.medix("preflight", judge_url=url)
        run.medix("train", judge_url=url)
    if knobs.on("EXPORT") or knobs.on("EVAL"):
        runner.call([MEDIX, "export", knobs["RUN"], "--out", f"{knobs['RUN']}/export", "--overwrite"])
    if knobs.on("EVAL"):
        _evaluate(run)
    runner.call([MEDIX, "report", knobs["RUN"], "--data", str(config.medix.data_dir)])


def _served(run: Run, folder: str, name: str, needed: bool, devices: str = "", memory: str = "") -> Any:
    """Return a block in which a judge is served on this node, on GPUs by position; or the JUDGE_URL as it is."""
    if not needed:
        return _given(run.knobs["JUDGE_URL"])
    positions = devices or run.knobs["JUDGE_DEVICES"]
    options = ["--served-model-name", name, "--tensor-parallel-size", str(len(positions.split(",")))]
    options += ["--gpu-memory-utilization", memory or run.knobs["JUDGE_MEMORY"]]
    return run.runner.serve(
        ["bash", str(CONFIG_DIR.parent / "serve.sh"), "judge", folder, *options],
        {"CUDA_VISIBLE_DEVICES": devices_at(positions), "PORT": str(_free_port()), "PARENT_PID": str(os.getpid())}
        | {"LOG": f"{run.knobs['RUN']}/judge.log"},
    )


@contextmanager
def _given(url: str) -> Iterator[str]:
    yield url


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _prepare(run: Run, config: Any) -> list[str]:
    limits = config.medix.prepare
    command = [MEDIX, "prepare", run.knobs["SOURCE"], "--out", str(config.medix.data_dir)]
    command += ["--model", run.folder("MODEL") or str(config.actor_rollout_ref.model.path)]
    command += ["--max-prompt-tokens", str(config.data.max_prompt_length)]
    return [*command, "--min-pixels", str(limits.min_pixels), "--max-pixels", str(limits.max_pixels)]


def _refuse_run(run: Run, config: Any) -> None:
    """Refuse a RUN of other settings, and an export of what is never saved, before anything is fetched or built."""
    from medix_verl.training.record import check_run_folder

    if config.trainer.save_freq <= 0 and (run.knobs.on("EXPORT") or run.knobs.on("EVAL")):
        raise ConfigError(
            f"trainer.save_freq={config.trainer.save_freq} saves no checkpoint, and the recipe exports one at its end.",
            "Set EXPORT=0 EVAL=0, or trainer.save_freq above 0.",
        )
    if not run.runner.dry:
        check_run_folder(config, hub_name)


def _refuse_foreign_data(run: Run, config: Any) -> None:
    """Refuse a DATA that is no folder of `medix prepare`: it is the user's, and is never written to."""
    data = run.knobs["DATA"]
    if not data or run.runner.dry or (Path(data) / "manifest.json").is_file():
        return
    command = shlex.join(["medix", *_prepare(run, config)[1:]])
    raise ConfigError(f"DATA={data} has no manifest.json.", f"Correct DATA, or make it: {command}")


def _evaluate(run: Run) -> None:
    """Ask both models the bare question, as the released evaluation does. The first GPU answers, the second judges."""
    knobs = run.knobs
    external = knobs["JUDGE"] == "external"
    name = knobs["JUDGE_MODEL"] if external else knobs["EVAL_JUDGE_MODEL"]
    with _served(run, run.folder("EVAL_JUDGE_MODEL"), name, not external, devices="1", memory="0.9") as url:
        for which, model in (("base", run.folder("MODEL")), ("trained", f"{knobs['RUN']}/export")):
            asked = ["--judge-url", url.split(",")[0], "--judge-model", name, "--out", f"{knobs['RUN']}/eval/{which}"]
            command = [MEDIX, "eval", "run", "--model", model, "--tasks", knobs["EVAL_TASKS"], *asked]
            run.runner.call(command, {"CUDA_VISIBLE_DEVICES": devices_at("0")})
        both = [f"{knobs['RUN']}/eval/base", f"{knobs['RUN']}/eval/trained"]
        run.runner.call([MEDIX, "eval", "compare", *both], tee=Path(knobs["RUN"]) / "eval/compare.md")


def run_cpu(run: Run) -> None:
    """Build the tiny model, prepare the sample set, train, export, evaluate and sum up, on two CPU cores."""
    knobs, runner, started = run.knobs, run.runner, time.monotonic()
    folder = Path(knobs["RUN"])
    here = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if not runner.dry:
        _refuse_run(run, compose_config(run.recipe, run.overrides()))
    if not knobs["MODEL"]:
        run.folders["MODEL"] = str(folder / "tiny-vlm")
        if not (folder / "tiny-vlm/config.json").is_file():
            steps = ["--seed", knobs["SEED"], "--steps", knobs["TINY_STEPS"]]
            runner.call([sys.executable, "-m", "examples.tiny_vlm", "--out", run.folder("MODEL"), *steps], here)
    if not knobs["DATA"] and not (folder / "data/manifest.json").is_file():
        runner.call([MEDIX, "prepare", "sample", "--out", str(folder / "data"), "--model", run.folder("MODEL")])
    colocated = knobs["JUDGE"] == "colocated"
    rules = [sys.executable, "-m", "examples.rule_judge", "--port", "0", "--parent-pid", str(os.getpid())]
    with _given(knobs["JUDGE_URL"]) if colocated or knobs["JUDGE_URL"] else runner.serve(rules, here) as url:
        run.medix("preflight", judge_url=url)
        run.medix("train", judge_url=url)
        if knobs.on("EXPORT") or knobs.on("EVAL"):
            base = ["--base", run.folder("MODEL"), "--overwrite"]
            runner.call([MEDIX, "export", str(folder), "--out", str(folder / "export"), *base])
        # A colocated judge has ended with the run, so it can not judge the evaluation.
        if knobs.on("EVAL") and not colocated:
            judge = ["--judge-url", url, "--judge-model", knobs["JUDGE_MODEL"]]
            for which, model in (("base", run.folder("MODEL")), ("trained", str(folder / "export"))):
                tasks = ["--tasks", "sample", "--backend", "transformers", "--prompt", "training"]
                out = ["--out", str(folder / "eval" / which)]
                runner.call([MEDIX, "eval", "run", "--model", model, *tasks, *judge, *out])
            both = [str(folder / "eval/base"), str(folder / "eval/trained")]
            runner.call([MEDIX, "eval", "compare", *both], tee=folder / "eval/compare.md")
    runner.call([MEDIX, "report", str(folder)])
    runner.call([MEDIX, "summary", str(folder), "--seconds-total", f"{time.monotonic() - started:.0f}"])
