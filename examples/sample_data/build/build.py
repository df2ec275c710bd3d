"""Chooses rows from the pictures so that answers are in balance, and writes the set."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from examples.sample_data.build.answers import ALIASES
from examples.sample_data.build.attribution import attribution
from examples.sample_data.build.families import FAMILIES
from examples.sample_data.build.picture import Fact, Picture
from examples.sample_data.build.text_facts import FACTS
from examples.sample_data.build.topics import TOPICS

SPLITS = ("train", "test")
SOURCE = "medix_sample"
QUESTIONS_PER_PICTURE = 2
FEWEST_TO_LEARN_FROM = 6
"""An answer with fewer training pictures is asked in neither split."""


@dataclass(frozen=True)
class Row:
    """A line of the set, and the picture it asks about (none for text-only rows)."""

    picture: Picture | None
    question: str
    answer: str
    kind: str


def build(folder: Path, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Writes the whole set under `folder`, replacing what was there; returns the lines of each split."""
    pictures = distinct(made for name, family in FAMILIES.items() for made in family(random.Random(f"{seed} {name}")))
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    lines: dict[str, list[dict[str, Any]]] = {}
    supply = Counter(fact for picture in pictures if picture.split == "train" for fact in picture.facts)
    allowed = {fact for fact, count in supply.items() if count >= FEWEST_TO_LEARN_FROM}
    for split in SPLITS:
        rng = random.Random(f"{seed} {split}")
        rows = choose_rows([picture for picture in pictures if picture.split == split], split, allowed, rng)
        rows += text_rows(split)
        rng.shuffle(rows)
        lines[split] = write_split(folder, split, rows)
    (folder / "ATTRIBUTION.md").write_text(attribution(line for split in SPLITS for line in lines[split]))
    return lines


def distinct(pictures: Iterable[Picture]) -> list[Picture]:
    """One picture of each that have the same pixels, with the facts of all of them."""
    found: dict[bytes, Picture] = {}
    for picture in pictures:
        content = picture.pixels.tobytes()
        known = found.get(content, picture)
        found[content] = replace(known, facts=tuple(dict.fromkeys((*known.facts, *picture.facts))))
    return list(found.values())


def choose_rows(pictures: list[Picture], split: str, allowed: Container[Fact], rng: random.Random) -> list[Row]:
    """At most two questions a picture, at most the topic's quota for an answer; rare answers choose first."""
    rng.shuffle(pictures)
    asked: Counter[int] = Counter()
    having: dict[Fact, list[int]] = {}
    for number, picture in enumerate(pictures):
        for fact in picture.facts:
            if fact in allowed:
                having.setdefault(fact, []).append(number)
    rows = []
    for fact in sorted(having, key=lambda fact: (len(having[fact]), fact.topic, fact.answer)):
        topic = TOPICS[fact.topic]
        free = [number for number in having[fact] if asked[number] < QUESTIONS_PER_PICTURE]
        free.sort(key=lambda number: asked[number])
        for turn, number in enumerate(_files_in_turn(free, pictures)[: topic.per_answer[split]]):
            asked[number] += 1
            rows.append(Row(pictures[number], topic.wordings[turn % len(topic.wordings)], fact.answer, topic.kind))
    return rows


def _files_in_turn(numbers: list[int], pictures: list[Picture]) -> list[int]:
    """`numbers` reordered so that every source file has its turn."""
    turns: Counter[str] = Counter()
    keyed = []
    for number in numbers:
        file = pictures[number].cut.file
        keyed.append((turns[file], number))
        turns[file] += 1
    return [number for _, number in sorted(keyed, key=lambda pair: pair[0])]


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
            Image.fromarray(picture.pixels).save(folder / name, quality=88, subsampling=0)
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
