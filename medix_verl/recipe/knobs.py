"""The knobs of the recipes: names in the environment, their defaults, and what they may hold.

A knob is a value, never a part of a command's text: it reaches Hydra as a quoted text, and child processes as one word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from medix.errors import ConfigError
from medix.options import suggest
from medix_verl.run_config import CONFIG_DIR, recipe_names

_FLAG, _WHOLE, _COUNT = "[01]", "0|[1-9][0-9]*", "[1-9][0-9]*"
_SAYS = {_FLAG: "0 or 1", _WHOLE: "a whole number", _COUNT: "a whole number above 0"}


@dataclass(frozen=True)
class Knob:
    """One knob. `pattern` is what a value has to match, if there is one; `group` a folder of config/ with its names."""

    default: str
    help: str
    pattern: str = ""
    group: str = ""


KNOBS = {
    "RUN": Knob("", "folder of the run; the same RUN again resumes (default: outputs/ and the recipe's name)"),
    "MODEL": Knob("", "a folder, or a hub name to download (default: the recipe's)"),
    "ALGO": Knob("", "grpo, gspo or dapo (default: the recipe's)", group="algorithm"),
    "REWARD": Knob("strict", "strict or paper", group="reward_preset"),
    "DATA": Knob("", "a folder of `medix prepare` (default: the recipe's, made if it is absent)"),
    "JUDGE": Knob("", "colocated, local or external (default: external with a JUDGE_URL, else colocated)"),
    "JUDGE_URL": Knob("", "OpenAI-compatible endpoints, separated by commas"),
    "JUDGE_MODEL": Knob("", "a folder, a hub name, or the endpoints' name for it"),
    "EMBEDDER": Knob("", "a folder, a hub name or a package (default: the reward's)"),
    "EMBEDDER_URL": Knob("", "endpoints that serve EMBEDDER (recipes/medix/serve.sh embedder), separated by commas"),
    "LORA_RANK": Knob("", "adapters of this rank; 0: all weights", _WHOLE),
    "HARDWARE": Knob("", "an arrangement of GPUs (default: what goes with JUDGE)", group="hardware"),
    "NNODES": Knob("1", "nodes of a Ray cluster (recipes/medix/ray_cluster.sh)", _COUNT),
    "GPUS": Knob("", "GPUs of each node that train (default: as HARDWARE says)", _COUNT),
    "STEPS": Knob("", "training steps (default: two epochs, as released)", _COUNT),
    "SEED": Knob("", "seed of data and sampling (default: the recipe's)", _WHOLE),
    "EXPORT": Knob("1", "1: a Hugging Face folder at the end, RUN/export", _FLAG),
    "EVAL": Knob("", "1: evaluate the model before and after on EVAL_TASKS", _FLAG),
    "EVAL_TASKS": Knob("paper,-mimic_cxr", "tasks of `medix eval`; MIMIC-CXR needs a local copy"),
    "EVAL_JUDGE_MODEL": Knob("Qwen/Qwen3-14B", "judge of the evaluation, as released; not used with a JUDGE_URL"),
    "DRY_RUN": Knob("0", "1: show the run on one screen, its configuration and steps; start nothing", _FLAG),
    "SOURCE": Knob("medix_rl", "what is prepared where DATA is absent; medix_rl:FOLDER for a downloaded copy"),
    "LOGGER": Knob("console,file", "veRL's trackers: wandb, tensorboard, trackio, mlflow ..."),
    "JUDGE_DEVICES": Knob("0,1", "JUDGE=local: GPUs that the judge shares, by position", r"[0-9]+(,[0-9]+)*"),
    "JUDGE_MEMORY": Knob("0.12", "JUDGE=local: share of each of them", r"0?\.[0-9]+"),
    "TINY_STEPS": Knob("720", "CPU recipe: warm-start steps of the tiny model", _COUNT),
}
_CPU = {
    "JUDGE": "external",
    "JUDGE_MODEL": "rule-judge",
    "SEED": "0",
    "STEPS": "40",
    "EVAL": "1",
    "RUN": "outputs/demo",
}
_GPU = {"JUDGE_MODEL": "Qwen/Qwen3-4B-Instruct-2507", "SEED": "1", "EVAL": "0"}


class Knobs(dict[str, str]):
    """Every knob's value, always a text; empty where there is neither a value nor a default."""

    def number(self, name: str) -> int:
        """Return a knob as a number, 0 if it is empty."""
        return int(self[name] or 0)

    def on(self, name: str) -> bool:
        return self[name] == "1"


def read_knobs(recipe: str, environment: Mapping[str, str]) -> Knobs:
    """Return the knobs of a recipe from the environment; what is empty there takes the recipe's default.

    Raises:
        ConfigError: no such recipe, a value that its knob can not hold, or two knobs that exclude each other.
    """
    if recipe not in (names := recipe_names()):
        raise ConfigError(f"There is no recipe {recipe!r}.", suggest(recipe, names))
    defaults = {"RUN": f"outputs/{recipe}"} | (_CPU if recipe == "medix_cpu" else _GPU)
    knobs = Knobs()
    for name, knob in KNOBS.items():
        value = environment.get(name, "")
        if value and knob.pattern and not re.fullmatch(knob.pattern, value):
            what = _SAYS.get(knob.pattern, f"like {knob.default}")
            raise ConfigError(f"{name} is {value!r}, and has to be {what}.", f"Correct {name}, or leave it out.")
        if value and knob.group:
            _check_choice(name, value, knob.group)
        knobs[name] = value or defaults.get(name, knob.default)
    if strange := [name for name, value in knobs.items() if re.search(r"[\n\0]|\$\{", value)]:
        raise ConfigError(f"{strange[0]} holds a line break or `${{`.", f"Correct {strange[0]}: it is taken as it is.")
    if knobs["JUDGE"] not in ("", "colocated", "local", "external"):
        raise ConfigError(f"JUDGE is {knobs['JUDGE']!r}.", "Set it to colocated, local or external.")
    if knobs["JUDGE_URL"] and knobs["JUDGE"] in ("colocated", "local"):
        raise ConfigError(
            f"JUDGE={knobs['JUDGE']} starts a judge, and JUDGE_URL={knobs['JUDGE_URL']} names one.",
            "Leave one of the two out, or set JUDGE=external.",
        )
    return knobs


def _check_choice(name: str, value: str, group: str) -> None:
    """Hold a knob that names a file of ours to the names there are: it is no path."""
    names = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
    if value not in names:
        raise ConfigError(f"{name} is {value!r}.", f"Set it to one of: {', '.join(names)}.")


def quoted(text: str) -> str:
    """Return a text as Hydra reads it: in quotes if it needs them, so that `=,()[] ` is no grammar and 14 is a text."""
    if re.fullmatch(r"[A-Za-z/_.][\w./-]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def quoted_list(text: str) -> str:
    """Return `a,b` as Hydra's list of texts."""
    return f"[{','.join(quoted(part) for part in text.split(',') if part)}]"
