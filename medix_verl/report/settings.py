"""What ran, from the resolved configuration: the lines worth reading first, all settings, and how runs differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from medix_verl.report.run_folder import RunFolder, lookup

MASK: Final = "(hidden)"
VALUE_CHARS: Final = 300
_SECRET = re.compile(r"(api_key|apikey|token|secret|password|credential|authorization)$", re.IGNORECASE)
_URL_SECRET = re.compile(r"(?<=://)[^/@\s]+@|\?[^\s'\"\]]*")
_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@dataclass(frozen=True)
class Line:
    label: str
    text: str


def what_ran(run: RunFolder) -> list[Line]:
    """The settings to read first; a line of which nothing is known is left out."""
    config = run.config

    def known(template: str, *paths: str) -> str:
        values = [lookup(config, path) for path in paths]
        return template.format(*(shown(value) for value in values)) if all(v not in (None, "") for v in values) else ""

    filtered = ", groups without spread filtered out" if lookup(config, "algorithm.filter_groups.enable") else ""
    lora = known(", LoRA rank {}", "actor_rollout_ref.model.lora_rank")
    parts = {
        "Model": known("{}", "actor_rollout_ref.model.path") + ("" if lora.endswith(" 0") else lora),
        "Algorithm": known("{}", "algorithm.adv_estimator")
        + known(", {} loss", f"{_ACTOR}.policy_loss.loss_mode")
        + known(", learning rate {}", f"{_ACTOR}.optim.lr")
        + filtered,
        "Batch": known("{} prompts", "data.train_batch_size") + known(" x {} responses", f"{_ROLLOUT}.n"),
        "Data": known("{}", "data.train_files") + known("; validation {}", "data.val_files"),
        "Judge": known("{}", "medix.scorer.judge.model") + known(" at {}", "medix.scorer.judge.urls"),
        "Embedder": known("{}", "medix.scorer.embedder.model"),
        "Versions": _versions(run.versions),
        "Code": _git(run.versions.get("git")),
    }
    return [Line(label, text) for label, text in parts.items() if text]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted path -> value as text, secrets hidden."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            is_secret = isinstance(value, str) and value and _SECRET.search(str(key))
            flat[path] = MASK if is_secret else shown(value)
    return dict(sorted(flat.items()))


def shown(value: object) -> str:
    """A value as the page shows it: short, and URLs without what may be a password in them."""
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return _URL_SECRET.sub("", text)[:VALUE_CHARS] if "://" in text else text[:VALUE_CHARS]


def difference(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """(path, value in each run) for every setting or version in which the runs differ.

    A run's own folder in a value is written RUN: where a run lies is no setting.
    """
    flats = [_without_own_folder(run) for run in runs]
    paths = sorted({path for flat in flats for path in flat})
    rows = [(path, [flat.get(path, "(not set)") for flat in flats]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _without_own_folder(run: RunFolder) -> dict[str, str]:
    own = {str(run.path), str(run.path.resolve()), shown(lookup(run.config, "medix.run_dir") or run.path)}
    flat = flatten({**run.config, "versions": run.versions})
    for folder in sorted(own, key=len, reverse=True):
        flat = {path: value.replace(folder, "RUN") for path, value in flat.items()}
    return flat


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {version}" for name, version in versions.items() if isinstance(version, (str, int, float))
    )


def _git(state: object) -> str:
    if not isinstance(state, Mapping) or not state.get("commit"):
        return ""
    return f"commit {str(state['commit'])[:12]}" + (", with uncommitted changes" if state.get("dirty") else "")
