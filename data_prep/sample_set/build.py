"""Chooses rows from the pictures so that answers are in balance, and writes the set."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.sample_set.answers import ALIASES
from data_prep.sample_set.attribution import attribution
from data_prep.sample_set.families import FAMILIES
from data_prep.sample_set.picture import Fact, Picture
from data_prep.sample_set.text_facts import FACTS
from data_prep.sample_set.topics import TOPICS

SPLITS = ("train", "test")
SOURCE = "medix_sample"
QUESTIONS_PER_PICTURE = 2


@dataclass(frozen=True)
class Row:
    """A line of the set, and the picture it asks about (none for text-only rows)."""

    picture: Picture | None
    question: str
    answer: str
    kind: str


def build(folder: Path, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Writes the whole set under `folder`, replacing what was there; returns the lines of each split."""
    pictures = [made for name, family in FAMILIES.items() for made in family(random.Random(f"{seed} {name}"))]
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    lines: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        rng = random.Random(f"{seed} {split}")
        rows = [*choose_rows([p for p in pictures if p.split == split], split, rng), *text_rows(split)]
        rng.shuffle(rows)
        lines[split] = write_split(folder, split, rows)
    (folder / "ATTRIBUTION.md").write_text(attribution(line for split in SPLITS for line in lines[split]))
    return lines


def choose_rows(pictures: list[Picture], split: str, rng: random.Random) -> list[Row]:
    """At most two questions a picture, at most the topic's quota for an answer, rarest answers first."""
    rng.shuffle(pictures)
    taken: Counter[Fact] = Counter()
    per_picture: Counter[int] = Counter()
    candidates = [(number, fact) for number, picture in enumerate(pictures) for fact in picture.facts]
    supply = Counter(fact for _, fact in candidates)
    rows = []
    for number, fact in sorted(candidates, key=lambda item: supply[item[1]]):
        topic = TOPICS[fact.topic]
        if taken[fact] >= topic.per_answer[split] or per_picture[number] >= QUESTIONS_PER_PICTURE:
            continue
        wording = topic.wordings[taken[fact] % len(topic.wordings)]
        taken[fact] += 1
        per_picture[number] += 1
        rows.append(Row(pictures[number], wording, fact.answer, topic.kind))
    return rows


def text_rows(split: str) -> list[Row]:
    """The text-only questions: all wordings but the last are trained on, the last is held out."""
    return [
        Row(None, wording, answer, "text")
        for answer, wordings in FACTS.items()
        for wording in (wordings[:-1] if split == "train" else wordings[-1:])
    ]


def write_split(folder: Path, split: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Writes the JSONL file of a split and its pictures, one file per distinct picture."""
    files: dict[int, str] = {}
    counts: Counter[str] = Counter()
    lines = []
    for number, row in enumerate(rows):
        picture = row.picture
        if picture is not None and id(picture) not in files:
            name = f"images/{split}_{picture.family}_{counts[picture.family]:03d}.jpg"
            counts[picture.family] += 1
            Image.fromarray(picture.pixels).save(folder / name, quality=92, subsampling=0)
            files[id(picture)] = name
        lines.append(to_line(f"{split}-{number:04d}", row, files))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return lines


def to_line(identity: str, row: Row, files: dict[int, str]) -> dict[str, Any]:
    """The JSON object of a row; same keys in every line."""
    picture = row.picture
    return {
        "id": identity,
        "source": SOURCE,
        "question": row.question,
        "answer": row.answer,
        "aliases": list(ALIASES.get(row.answer, ())),
        "images": [files[id(picture)]] if picture else [],
        "modality": picture.modality if picture else None,
        "answer_kind": "open",
        "kind": row.kind,
        "image_family": picture.family if picture else None,
        "provenance": picture.provenance if picture else "general fact, written for this set",
        "cut": picture.cut.to_json() if picture else None,
    }
