"""What ran, from the resolved configuration: the lines to read first, all settings, and how runs differ."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from medix.files import lookup
from medix.secrets import MASK, is_secret_name, mask_secrets
from medix_verl.report.run_folder import RunFolder

VALUE_CHARS: Final = 300
MAX_SETTINGS: Final = 5_000
_ACTOR: Final = "actor_rollout_ref.actor"
LINES: Final[dict[str, dict[str, str]]] = {
    "Model": {"actor_rollout_ref.model.path": "{}", "actor_rollout_ref.model.lora_rank": "LoRA rank {}"},
    "Algorithm": {
        "algorithm.adv_estimator": "{} advantages",
        f"{_ACTOR}.policy_loss.loss_mode": "{} loss",
        f"{_ACTOR}.optim.lr": "learning rate {}",
    },
    "Batch": {"data.train_batch_size": "{} prompts", "actor_rollout_ref.rollout.n": "{} responses to each"},
    "Data": {"data.train_files": "{}", "data.val_files": "validation {}"},
    "Judge": {"medix.scorer.judge.model": "{}", "medix.scorer.judge.urls": "at {}"},
    "Embedder": {"medix.scorer.embedder.model": "{}"},
    "Seed": {"data.seed": "{}"},
}
"""Line of the page -> the settings that it names, and how."""


def what_ran(run: RunFolder) -> list[tuple[str, str]]:
    """Return (label, text) of the settings to read first; a line of which nothing is known is left out."""
    found = {}
    for label, parts in LINES.items():
        values = {text: lookup(run.config, path) for path, text in parts.items()}
        # A rank of 0 is no LoRA, but a seed of 0 is one.
        found[label] = ", ".join(
            text.format(shown(v)) for text, v in values.items() if v or (v == 0 and label == "Seed")
        )
    seconds, git = run.summary.get("seconds_total"), run.versions.get("git")
    if isinstance(seconds, int | float):
        found["Time"] = f"{seconds // 60:.0f} min {seconds % 60:.0f} s for the whole recipe"
    elif steps := sum(run.metrics.series("timing_s/step").values):
        found["Time"] = f"{steps // 60:.0f} min {steps % 60:.0f} s for the steps alone"
    found["Last written"] = run.last_written
    found["Versions"] = ", ".join(f"{name} {text}" for name, text in run.versions.items() if isinstance(text, str))
    if isinstance(git, Mapping) and git.get("commit"):
        found["Code"] = f"commit {str(git['commit'])[:12]}" + (", with uncommitted changes" if git.get("dirty") else "")
    return [(label, text) for label, text in found.items() if text]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return dotted path -> value as text, secrets hidden; at most `MAX_SETTINGS` of them."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = MASK if value and isinstance(value, str) and is_secret_name(str(key)) else shown(value)
        if len(flat) > MAX_SETTINGS:
            break
    return dict(sorted(flat.items()))


def shown(value: object) -> str:
    """Return a value as the page shows it: short, and without what looks like a secret."""
    # A nested list may be a YAML bomb, small in the file and without end as text.
    text = value if isinstance(value, str) else reprlib.repr(value)
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        text = ", ".join(map(str, value))
    return mask_secrets(text)[:VALUE_CHARS]


def difference(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """Return (path, value in each run) for every setting or version in which the runs differ.

    A run's own folder in a value is written RUN, and the port of a local server PORT: neither is a setting.
    """
    flats = [_comparable(run) for run in runs]
    paths = sorted({path for flat in flats for path in flat})
    rows = [(path, [flat.get(path, "(not set)") for flat in flats]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _comparable(run: RunFolder) -> dict[str, str]:
    own = {str(run.path), str(run.path.resolve()), shown(lookup(run.config, "medix.run_dir") or str(run.path))}
    flat = flatten({**run.config, "versions": run.versions})
    for folder in sorted(own, key=len, reverse=True):
        flat = {path: value.replace(folder, "RUN") for path, value in flat.items()}
    return {path: re.sub(r"(127\.0\.0\.1|localhost):\d+", r"\1:PORT", value) for path, value in flat.items()}
