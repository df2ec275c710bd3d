"""README.md of an exported folder, from what the run wrote. An absent piece is left out, and the card says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from medix_verl.export.base_model import BaseModel
from medix_verl.export.card_sections import (
    algorithm_section,
    data_section,
    evaluation_section,
    figures_section,
    licences_section,
    reward_section,
    versions_section,
)
from medix_verl.export.card_text import hub_name, plain
from medix_verl.export.contract import Checkpoint
from medix_verl.report.lines import read_mapping
from medix_verl.report.run_folder import lookup

NOTICE: Final = (
    "**Research use only.** This is not a medical device. It must not be used for diagnosis, treatment or any other "
    "clinical decision. Its answers may be wrong, also where they sound certain; the reward that was learned from "
    "is only as good as its judge."
)


@dataclass
class RunFacts:
    """What a run folder holds for the card; empty mappings where a file is missing. `notes`: what was unreadable."""

    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    rewards: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    run_dir: Path | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, run_dir: Path | None) -> RunFacts:
        if run_dir is None:
            return cls(notes=["the run's folder, which would say how the model was trained"])
        notes: list[str] = []
        config = read_mapping(run_dir / "config.yaml", notes)
        rows = read_mapping(run_dir / "reward_table.json", notes).get("rows", [])
        train = lookup(config, "data.train_files")
        places = [run_dir / "data", *([Path(train).parent] if isinstance(train, str) else [])]
        manifests = [read_mapping(place / "manifest.json", notes) for place in reversed(places)]
        return cls(
            config,
            read_mapping(run_dir / "versions.json", notes),
            [row for row in rows if isinstance(row, dict)],
            read_mapping(run_dir / "summary.json", notes),
            next((manifest for manifest in manifests if manifest), {}),
            run_dir,
            notes,
        )


def write_model_card(
    folder: Path, checkpoint: Checkpoint, base: BaseModel, gguf_commands: Sequence[str] = ()
) -> dict[str, Any]:
    """Write README.md; which sections are in it and what was left out, for `export.json`."""
    facts = RunFacts.read(checkpoint.run_dir)
    text, left_out = model_card(facts, checkpoint, base, gguf_commands)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return {"file": "README.md", "left_out": left_out}


def model_card(
    facts: RunFacts, checkpoint: Checkpoint, base: BaseModel, gguf_commands: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """(the card, what was not known)."""
    # The title is the run's name: a folder's, so anybody's.
    title = plain(checkpoint.run_dir.name if checkpoint.run_dir else "Exported model")
    step = f" Checkpoint of training step {checkpoint.step}." if checkpoint.step is not None else ""
    parts = [
        _front_matter(base),
        f"# {title}",
        f"Trained by reinforcement learning with [MediX-R1 on veRL](https://arxiv.org/abs/2602.23363).{step}",
        NOTICE,
    ]
    sections = {
        "Base model": _base_name(base),
        "Training data": data_section(facts.manifest),
        "Reward": reward_section(facts.rewards),
        "Algorithm": algorithm_section(facts.config),
        "Held-out figures of the run": figures_section(facts.summary),
        "Evaluation": evaluation_section(facts.run_dir),
        "Versions": versions_section(facts.versions),
        "Licences": licences_section(base, facts.manifest),
        "GGUF": _gguf_section(gguf_commands),
    }
    left_out = [name for name, text in sections.items() if not text and name != "GGUF"]
    parts += [f"## {name}\n\n{text}" for name, text in sections.items() if text]
    parts.append(
        "## Proofs\n\n`export.json` in this folder lists what was checked when it was exported: every shard and "
        "tensor, the digest of the weights, the side files against the base model's, test generations, and what was "
        "not proved."
    )
    if missing := [*left_out, *(plain(note) for note in facts.notes)]:
        parts.append("Not known when this card was written, so left out: " + "; ".join(missing) + ".")
    return "\n\n".join(parts) + "\n", left_out


def _base_name(base: BaseModel) -> str:
    if not base.name:
        return ""
    return plain(base.shown) if hub_name(base.name) else f"A local folder called {plain(base.shown)}."


def _front_matter(base: BaseModel) -> str:
    """No licence here: it is the base model's and the data's together, which the text lists."""
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "tags": ["medical", "reinforcement-learning", "verl"],
    }
    if name := hub_name(base.name):
        fields["base_model"] = name
    return f"---\n{yaml.safe_dump(fields, sort_keys=False).strip()}\n---"


def _gguf_section(commands: Sequence[str]) -> str:
    if not commands:
        return ""
    listed = "\n".join(commands)
    return (
        "The files that llama.cpp's converter reads were checked; a conversion was not run. In a checkout of "
        f"llama.cpp, with this folder's path for `MODEL`:\n\n```bash\n{listed}\n```"
    )
