"""The model card, README.md of an exported folder: from what the run wrote, by one template.

A missing piece is left out and the card says so. Text of a run's files is escaped: it can not end a table, open a tag
or a link, or reach the front matter.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from medix.errors import MedixError
from medix.files import YAML_FAULTS, lookup, mapping_inside, open_inside, write_atomically
from medix.prompts import load_prompt, render_prompt
from medix_verl.export.checkpoint import RECORD, BaseModel, find_base
from medix_verl.report.run_folder import evaluated

CARD: Final = "README.md"
PROMPT_FILE: Final = "training_prompt.txt"
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()#+!|~$^])")
_SETTINGS: Final = {
    "advantage": "algorithm.adv_estimator",
    "loss": "actor_rollout_ref.actor.policy_loss.loss_mode",
    "clip, low": "actor_rollout_ref.actor.clip_ratio_low",
    "clip, high": "actor_rollout_ref.actor.clip_ratio_high",
    "KL loss": "actor_rollout_ref.actor.use_kl_loss",
    "learning rate": "actor_rollout_ref.actor.optim.lr",
    "steps": "trainer.total_training_steps",
    "prompts a step": "data.train_batch_size",
    "responses a prompt": "actor_rollout_ref.rollout.n",
    "response tokens, at most": "data.max_response_length",
    "LoRA rank": "actor_rollout_ref.model.lora_rank",
    "seed": "data.seed",
    "judge": "medix.scorer.judge.model",
    "embedder": "medix.scorer.embedder.model",
}
"""Line of the card -> path in config.yaml."""


def training_prompt(run_dir: Path | None) -> str:
    """Return the prompt that the run's data was prepared with, from its manifest, else the repository's."""
    text = lookup(_data_manifest(run_dir), "prompt.text")
    usable = isinstance(text, str) and text.count("{question}") == text.count("{images}") == 1
    return str(text).strip() if usable else load_prompt()


def _data_manifest(run_dir: Path | None) -> dict[str, Any]:
    train = lookup(mapping_inside(run_dir, "config.yaml"), "data.train_files")
    places = [Path(train).parent if isinstance(train, str) else None, run_dir and run_dir / "data"]
    return next((found for place in places if (found := mapping_inside(place, "manifest.json"))), {})


def write_card(folder: Path, record: Mapping[str, Any], run_dir: Path | None, base: BaseModel) -> None:
    """Write README.md and the training prompt of an exported folder."""
    import jinja2

    prompt, manifest = training_prompt(run_dir), _data_manifest(run_dir)
    config, summary, versions = (mapping_inside(run_dir, n) for n in ("config.yaml", "summary.json", "versions.json"))
    rewards: Any = []
    with contextlib.suppress(MedixError, OSError, ValueError, RecursionError):
        if run_dir is not None:
            with open_inside(run_dir, "reward_table.json") as file:
                rewards = json.loads(file.read())
    figures = [(name, *(_number(summary.get(f"{name}_{when}")) for when in ("before", "after")))
               for name in ("val_reward", "accuracy", "format", "modality")]  # fmt: skip
    sections: dict[str, list[tuple[Any, ...]]] = {
        "sources": [(s.get("name"), s.get("licence"), s.get("revision")) for s in _dicts(manifest.get("sources"))],
        "splits": [(name, lookup(split, "rows")) for name, split in _mapping(manifest.get("splits")).items()],
        "rewards": [
            (r.get("component"), _number(r.get("weight")), _number(r.get("effective"))) for r in _dicts(rewards)
        ],
        "settings": [(n, v) for n, path in _SETTINGS.items() if (v := lookup(config, path)) not in (None, "", 0)],
        "figures": [row for row in figures if None not in row],
        "evaluation": _evaluation(run_dir),
        "versions": [(name, value) for name, value in versions.items() if isinstance(value, str)],
    }
    # Markdown, so nothing is escaped as HTML is; the template passes every value through `plain`.
    text = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
    text.filters |= {"plain": plain, "python": lambda value: json.dumps(value, ensure_ascii=False)}
    # No licence in the front matter: the base model's and the data's bind together, and the text lists them.
    kind = "image-text-to-text" if "image" in _mapping(record.get("generations")) else "text-generation"
    front = {
        "library_name": "transformers",
        "pipeline_tag": kind,
        "tags": ["medical", "reinforcement-learning", "verl"],
    }
    before, _, after = render_prompt(prompt, "{question}", 1).partition("<image>")
    card = text.from_string(Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")).render(
        sections,
        front_matter=yaml.safe_dump(
            front | ({"base_model": base.name} if base.on_hub else {}), sort_keys=False
        ).strip(),
        title=run_dir.name if run_dir else "Exported model",
        step=record.get("step"),
        base=base.shown,
        base_licence=_licence_of(base),
        before=before,
        after=after,
        left_out=[name for name, rows in sections.items() if not rows],
    )
    write_atomically(folder / PROMPT_FILE, prompt + "\n")
    write_atomically(folder / CARD, card)


def fill_card(folder: Path, run_dir: Path) -> None:
    """Write the card of an exported folder again, with what the run has by now, such as its evaluation.

    Does nothing if the folder is no export.
    """
    if record := mapping_inside(folder, RECORD):
        base = find_base(run_dir)
        write_card(folder, record, run_dir, base if base.name else BaseModel(record.get("base")))


def plain(value: object) -> str:
    """Return one line of text without markup; controls and characters that reorder or hide text become spaces."""
    text = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs") else char for char in str(value))
    text = " ".join(text.split())[:300]
    return _MARKUP.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _evaluation(run_dir: Path | None) -> list[tuple[Any, ...]]:
    """Return (model, task, items, score, interval, judge) of every evaluation of the run."""
    rows = []
    for name, task, result, scores in evaluated(run_dir, []) if run_dir else ():
        judges = [BaseModel(str(judge.get("model"))).shown for judge in _dicts(lookup(scores, "settings.judge.judges"))]
        rows.append((name, task, *result, ", ".join(map(str, judges)) or "none"))
    return rows


def _licence_of(base: BaseModel) -> str | None:
    """Return the licence in the front matter of the base model's own card."""
    with contextlib.suppress(OSError, *YAML_FAULTS):
        if base.folder is not None:
            text = (base.folder / CARD).read_text(encoding="utf-8", errors="replace")
            fields = _mapping(yaml.safe_load(text.split("\n---", 1)[0].removeprefix("---")))
            return fields.get("license_name") or fields.get("license")
    return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else None
