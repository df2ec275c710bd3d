"""The noun of the evaluation: one benchmark question, with all that is needed to ask it and to score the answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from medix.errors import DataError

ItemKind = Literal["open", "closed", "choice", "report", "points"]
ITEM_KINDS: tuple[str, ...] = get_args(ItemKind)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Item:
    """One question. `images` are encoded bytes and are dropped as soon as the question has been asked."""

    task: str
    id: str
    """Stable: the source's own, or made of the content; never the position in a file."""
    question: str
    reference: str
    """What the answer is held against; for choice questions the text of the right option."""
    kind: ItemKind = "open"
    """`closed` is answered by yes or no, `report` is graded 0 to 5, `points` is graded criterion by criterion."""
    images: tuple[bytes, ...] = field(default=(), repr=False)
    choices: tuple[str, ...] = ()
    letter: str = ""
    """Of the right option; several letters where several are right; empty unless `kind` is choice."""
    passage: str = ""
    modality: str | None = None
    aliases: tuple[str, ...] = ()
    group: str = ""
    """Items with the same group are not independent of each other; empty: the images, or the passage, decide."""
    points: tuple[tuple[str, float], ...] = ()
    """Criteria of a `points` item, each with what it adds (or, below 0, takes away)."""
    asked: str = ""
    """The whole wording of the question where a protocol has its own."""
    place: int = 0
    """Number of the row in its source, from 0, refused rows counted."""

    def __post_init__(self) -> None:
        where, fix = f"{self.task}:{self.id}", "Leave the row out of the source, or complete it."
        if not self.question.strip() or not (self.reference.strip() or self.points):
            raise DataError(f"{where} lacks a question or a reference answer.", fix)
        if self.kind not in ITEM_KINDS:
            raise DataError(f"{where} is of the unknown kind {self.kind!r}.", f"Use one of {', '.join(ITEM_KINDS)}.")
        letters = LETTERS[: len(self.choices)]
        if self.kind == "choice" and not (self.letter and set(self.letter) <= set(letters)):
            raise DataError(f"{where}: the right letter {self.letter!r} is not one of {letters}.", fix)
        if self.kind == "points" and not any(points > 0 for _, points in self.points):
            raise DataError(f"{where} has no criterion that adds points.", fix)

    @cached_property
    def image_hashes(self) -> tuple[str, ...]:
        return tuple(sha(image) for image in self.images)

    @property
    def cluster(self) -> str:
        """Name of the group of items that stand or fall together: one image, one passage, or the item alone."""
        if self.group:
            return self.group
        if self.images:
            return self.image_hashes[0]
        return sha(self.passage.encode()) if self.passage else sha(f"{self.task}\n{self.id}".encode())

    def as_row(self) -> dict[str, Any]:
        """Return all but the image bytes, as it is written beside the response."""
        names = ("task", "id", "place", "kind", "question", "reference", "letter", "passage", "modality")
        row = {name: getattr(self, name) for name in names}
        row |= {"aliases": list(self.aliases), "choices": list(self.choices), "cluster": self.cluster}
        row |= {"points": [list(point) for point in self.points]} if self.points else {}
        row |= {"asked": self.asked} if self.asked else {}
        return row | {"images": list(self.image_hashes)}


def sha(data: bytes) -> str:
    """Return sixteen hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def content_hash(*parts: Any) -> str:
    """Return the content address of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:24]
