"""A study as data, and its runs: every variant with every seed, one after the other, each an ordinary run folder.

A study's YAML names a recipe, its knobs, the variants (each a list of Hydra overrides) and the seeds. What is done is
not done again, so the same command goes on after an interruption, and a variant that fails does not stop the others.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medix.errors import ConfigError
from medix.files import last_lines, open_to_append, read_mapping, write_atomically
from medix.options import Count, Texts, read_options
from medix_verl.training.metrics_file import read_metrics

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Setup:
    """A command that makes what the runs share. It runs if `makes` does not exist yet."""

    makes: str
    command: Texts


@dataclass(frozen=True)
class Study:
    """One question, asked by training the same model under several rewards or algorithms.

    `{out}` stands for the study's folder in every text, `{studies}` for the folder above it, which studies share, and
    `{seed}` for a run's seed; a set-up step that mentions `{seed}` runs once a seed.
    """

    name: str
    question: str
    truth: str
    """JSONL of the validation samples, with `id`, `answer` or `reference`, `aliases` and `kind`."""
    variants: dict[str, list[str]]
    """Name of the variant -> Hydra overrides."""
    recipe: str = "recipes/medix/run_cpu.sh"
    steps: Count = 40
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    knobs: dict[str, str] = field(default_factory=dict)
    """Environment variables of the recipe, the same for every run."""
    overrides: Texts = ()
    """Hydra overrides of every variant, before its own."""
    runs: str = "{out}/runs"
    """Folder of the runs. Studies that name the same one share the variants that they have in common."""
    setup: list[Setup] = field(default_factory=list)
    baseline: str = ""
    """The variant that the others are compared with; the first one if it is empty."""


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    variant: str
    seed: int
    folder: Path
    command: tuple[str, ...]
    environment: dict[str, str]
    """What the recipe's environment has besides the shell's own."""

    def is_done(self, steps: int) -> bool:
        """Return whether the metrics of the last step are there."""
        rows = read_metrics(self.folder / "metrics.jsonl")
        return bool(rows) and int(rows[-1]["step"]) >= steps

    def claim(self) -> None:
        """Note beside the run's folder what runs in it.

        Raises:
            ConfigError: something else ran there, whose figures would stand under this variant's name.
        """
        note = self.folder.with_suffix(".json")
        settings = {"command": list(self.command), "knobs": {**self.environment, "STEPS": "", "RUN": ""}}
        has_run = (self.folder / "metrics.jsonl").is_file() and note.is_file()
        if has_run and read_mapping(note) != settings:
            raise ConfigError(
                f"{self.folder} holds a run of {self.variant!r} with other settings ({note.name}).",
                "Give the changed variant another name, or delete the run's folder and that file.",
            )
        write_atomically(note, json.dumps(settings, indent=1) + "\n")

    def shown(self) -> str:
        """Return the run as a line that a shell would take."""
        knobs = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(self.environment.items()))
        return f"{knobs} {shlex.join(self.command)}"


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: the file is missing, has an unknown field, a name that can not be a folder, or no such recipe.
    """
    if not path.is_file():
        raise ConfigError(
            f"There is no study at {path}.", "Name a YAML file, e.g. examples/studies/reward_design.yaml."
        )
    study = read_options(Study, read_mapping(path), str(path))
    wrong = [name for name in (study.name, *study.variants) if not NAME.fullmatch(name)]
    if wrong:
        raise ConfigError(
            f"{wrong[0]!r} can not be the name of a folder.",
            "Use letters, digits, `_` and `-` for the names in the study.",
        )
    if study.baseline and study.baseline not in study.variants:
        raise ConfigError(f"The baseline {study.baseline!r} is no variant of {path}.", "Name one of its variants.")
    if not study.variants or not study.seeds:
        raise ConfigError(f"{path} has no variants or no seeds.", "Add at least one of each.")
    if len(set(study.seeds)) < len(study.seeds):
        raise ConfigError(f"{path} names a seed twice: {study.seeds}.", "Give each run a seed of its own.")
    if not Path(study.recipe).is_file():
        raise ConfigError(f"There is no recipe at {study.recipe}.", "Run the command in the project's folder.")
    return study


def runs_of(study: Study, out: Path) -> list[Run]:
    """Return every run of a study, seed by seed, so that an interrupted study has whole seeds first."""
    found = []
    for seed in study.seeds:
        for variant, overrides in study.variants.items():
            folder = Path(fill(study.runs, out, seed)).resolve() / variant / f"seed_{seed}"
            knobs = {name: fill(text, out, seed) for name, text in study.knobs.items()}
            knobs |= {"RUN": str(folder), "SEED": str(seed), "STEPS": str(study.steps)}
            found.append(Run(variant, seed, folder, ("bash", study.recipe, *study.overrides, *overrides), knobs))
    return found


def fill(text: str, out: Path, seed: int | None) -> str:
    """Return a study's text with `{out}`, `{studies}` and `{seed}` filled in."""
    places = text.replace("{out}", str(out)).replace("{studies}", str(out.parent))
    return places.replace("{seed}", "" if seed is None else str(seed))


def setup_steps(study: Study, out: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield (what it makes, command) for everything that the runs share, each once."""
    for step in study.setup:
        seeds: list[int | None] = list(study.seeds) if "{seed}" in step.makes else [None]
        for seed in seeds:
            yield Path(fill(step.makes, out, seed)), [fill(word, out, seed) for word in step.command]


def check_variants(study: Study, out: Path) -> None:
    """Compose every variant by the recipe's dry run, so that a wrong override fails before the first run starts.

    Raises:
        ConfigError: a variant can not be composed (the message is the recipe's own), or has changed since it ran.
    """
    runs = runs_of(study, out)
    for run in runs[: len(study.variants)]:
        environment = {**os.environ, **run.environment, "DRY_RUN": "1"}
        dry = subprocess.run(run.command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if dry.returncode:
            said = " ".join((dry.stderr or dry.stdout).strip().split("\n")[-3:])
            raise ConfigError(
                f"The variant {run.variant!r} can not run: {said}",
                "Correct its overrides in the study; nothing has started.",
            )
    for run in runs:
        run.claim()


def execute(study: Study, out: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Run all that is not done yet.

    Returns:
        For each run that failed, its name and the last lines of its log.

    Raises:
        ConfigError: a set-up step failed.
    """
    for makes, command in setup_steps(study, out):
        if not makes.exists():
            say(f"set-up: {' '.join(command)}")
            log = out / "logs" / f"setup_{makes.name}.log"
            if _call(command, {}, log):
                raise ConfigError(
                    f"A set-up step failed: {last_lines(log, 3)}", f"See {log}, then run the same command."
                )
    failed = {}
    runs = runs_of(study, out)
    for number, run in enumerate(runs, 1):
        name = f"{run.variant}, seed {run.seed}"
        if run.is_done(study.steps):
            say(f"{number} of {len(runs)}: {name}: done")
            continue
        started = time.monotonic()
        log = out / "logs" / f"{run.variant}_seed_{run.seed}.log"
        say(f"{number} of {len(runs)}: {name}: running; log {log}")
        if _call(run.command, run.environment, log) or not run.is_done(study.steps):
            failed[name] = last_lines(log, 5)
            say(f"{number} of {len(runs)}: {name}: FAILED after {time.monotonic() - started:.0f} s; see {log}")
        else:
            say(f"{number} of {len(runs)}: {name}: {time.monotonic() - started:.0f} s")
    return failed


def _call(command: list[str] | tuple[str, ...], extra: dict[str, str], log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open_to_append(log) as file:
        return subprocess.run(
            command, env={**os.environ, **extra}, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        ).returncode
