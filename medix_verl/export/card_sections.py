"""The sections of a model card, each from one file of the run; an empty string where that says nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from medix_verl.export.base_model import BaseModel
from medix_verl.export.card_text import block, number, plain, shown_name, table
from medix_verl.report.lines import read_mapping
from medix_verl.report.run_folder import lookup
from medix_verl.report.settings import shown

SETTINGS: Final = {
    "advantage": "algorithm.adv_estimator",
    "loss": "actor_rollout_ref.actor.policy_loss.loss_mode",
    "loss aggregation": "actor_rollout_ref.actor.loss_agg_mode",
    "clip, low": "actor_rollout_ref.actor.clip_ratio_low",
    "clip, high": "actor_rollout_ref.actor.clip_ratio_high",
    "groups without spread filtered out": "algorithm.filter_groups.enable",
    "KL loss": "actor_rollout_ref.actor.use_kl_loss",
    "KL coefficient": "actor_rollout_ref.actor.kl_loss_coef",
    "learning rate": "actor_rollout_ref.actor.optim.lr",
    "weight decay": "actor_rollout_ref.actor.optim.weight_decay",
    "schedule": "actor_rollout_ref.actor.optim.lr_scheduler_type",
    "steps": "trainer.total_training_steps",
    "prompts a step": "data.train_batch_size",
    "responses a prompt": "actor_rollout_ref.rollout.n",
    "mini-batch, prompts": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "sampling temperature": "actor_rollout_ref.rollout.temperature",
    "prompt tokens, at most": "data.max_prompt_length",
    "response tokens, at most": "data.max_response_length",
    "LoRA rank": "actor_rollout_ref.model.lora_rank",
    "LoRA alpha": "actor_rollout_ref.model.lora_alpha",
    "seed": "data.seed",
    "judge": "medix.scorer.judge.model",
    "embedder": "medix.scorer.embedder.model",
}
"""Line of the card -> path in config.yaml."""


def data_section(manifest: Mapping[str, Any]) -> str:
    """Sources, licences and counts of manifest.json."""
    splits, sources = _mapping(manifest.get("splits")), _rows(manifest.get("sources"))
    if not splits and not sources:
        return ""
    counts = {name: _mapping(_mapping(split).get("sources")) for name, split in splits.items()}
    rows = [
        (
            source.get("name", ""),
            source.get("licence") or "not stated",
            source.get("revision") or "not stated",
            *(count.get(str(source.get("name")), 0) for count in counts.values()),
        )
        for source in sources
    ]
    totals = [number(_mapping(split).get("rows"), "{:d}") or "?" for split in splits.values()]
    head = ["source", "licence", "revision", *(f"{plain(name)} rows" for name in splits)]
    return table(head, [*rows, ("all", "", "", *totals)])


def reward_section(rewards: Sequence[Mapping[str, Any]]) -> str:
    """Components and effective weights of reward_table.json."""
    rows = [
        (row.get("component", ""), number(row.get("weight")) or "?", number(row.get("effective")) or "?")
        for row in rewards
    ]
    return table(["component", "weight", "effective"], rows) if rows else ""


def algorithm_section(config: Mapping[str, Any]) -> str:
    """The settings that matter, from config.yaml."""
    found = {label: lookup(config, path) for label, path in SETTINGS.items()}
    if not found["LoRA rank"]:
        found |= {"LoRA rank": None, "LoRA alpha": None}
    if not found["KL loss"]:
        found["KL coefficient"] = None
    rows = [(label, shown(value)) for label, value in found.items() if value not in (None, "")]
    return table(["setting", "value"], rows) if rows else ""


def figures_section(summary: Mapping[str, Any]) -> str:
    """Before and after, from summary.json."""
    rows = []
    for name in ("val_reward", "accuracy", "format", "modality"):
        before, after = (number(summary.get(f"{name}_{when}")) for when in ("before", "after"))
        if before and after:
            rows.append((name, before, after))
    if not rows:
        return ""
    text = table(["held-out mean, greedy", "before", "after"], rows)
    return text + "\n\nScored by the run's own reward and judge, on its own validation split."


def evaluation_section(run_dir: Path | None) -> str:
    """The tables of `medix eval` in the run's `eval/` folder."""
    if run_dir is None or not (run_dir / "eval").is_dir():
        return ""
    rows: list[tuple[object, ...]] = []
    for path in sorted((run_dir / "eval").glob("*/scores.json")):
        judges = _rows(lookup(read_mapping(path, []), "settings.judge.judges"))
        judge = ", ".join(shown_name(str(judge.get("model", "?"))) for judge in judges) or "not stated"
        for task, result in _mapping(read_mapping(path, []).get("tasks")).items():
            estimate = _mapping(_mapping(result).get("estimate"))
            score, low, high = (number(estimate.get(key), "{:.1%}") for key in ("mean", "low", "high"))
            if score and low and high:
                items = number(_mapping(result).get("items"), "{:d}") or "?"
                rows.append((path.parent.name, task, items, score, f"{low} to {high}", judge))
    text = table(["model", "task", "items", "score", "95 % interval", "judge"], rows) if rows else ""
    compare = run_dir / "eval" / "compare.md"
    if compare.is_file():
        compared = compare.read_text(encoding="utf-8", errors="replace").replace(str(run_dir), "RUN")
        text += ("\n\n" if text else "") + block(compared)
    return text


def versions_section(versions: Mapping[str, Any]) -> str:
    rows = [(name, value) for name, value in versions.items() if isinstance(value, str)]
    if commit := _mapping(versions.get("git")).get("commit"):
        rows.append(("this project's commit", str(commit)))
    return table(["package", "version"], rows) if rows else ""


def licences_section(base: BaseModel, manifest: Mapping[str, Any]) -> str:
    """What binds a user of the weights, as far as it is known."""
    lines = [f"- Base model: {plain(_base_licence(base) or 'not known here; look at its own card')}."]
    for source in _rows(manifest.get("sources")):
        lines.append(f"- Data source {plain(source.get('name', ''))}: {plain(source.get('licence') or 'not stated')}.")
    lines.append("- The training code is under Apache-2.0; that says nothing about the weights.")
    return "\n".join(lines)


def _base_licence(base: BaseModel) -> str | None:
    """From the front matter of the base model's own card."""
    import yaml

    card = base.folder / "README.md" if base.folder else None
    if card is None or not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    try:
        fields = yaml.safe_load(text[4:].split("\n---", 1)[0])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    licence = _mapping(fields).get("license_name") or _mapping(fields).get("license")
    return licence if isinstance(licence, str) else json.dumps(licence) if licence else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []
