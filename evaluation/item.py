"""The noun of the evaluation: one benchmark question, with all that is needed to ask it and to score the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from medix.errors import DataError

ItemKind = Literal["open", "closed", "choice", "report", "points"]
ITEM_KINDS: tuple[str, ...] = get_args(ItemKind)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
"""Of a task; file names are made of it."""


@dataclass(frozen=True)
class Content:
    """What a question says, and what its answer is held against."""

    task: Name
    id: str
    """Stable: the source's own, or made of the content; never the position in a file."""
    question: str
    reference: str
    """What the answer is held against; for choice questions the text of the right option."""
    kind: ItemKind = "open"
    """`closed` is answered by yes or no, `report` is graded 0 to 5, `points` is graded criterion by criterion."""
    choices: tuple[str, ...] = ()
    letter: str = ""
    """Of the right option; several letters where several are right; empty unless `kind` is choice."""
    passage: str = ""
    modality: str | None = None
    aliases: tuple[str, ...] = ()
    points: tuple[tuple[str, float], ...] = ()
    """Criteria of a `points` item, each with what it adds (or, below 0, takes away)."""
    asked: str = ""
    """The whole wording of the question where a protocol has its own."""
    place: int = 0
    """Number of the row in its source, from 0, refused rows counted."""

    @property
    def shown_question(self) -> str:
        """The question with its lettered options, or the protocol's own wording."""
        return self.asked or with_options(self.question, self.choices)

    @property
    def shown_passage(self) -> str:
        """The passage; empty where the protocol's own wording holds it already."""
        return "" if self.asked else self.passage.strip()

    @property
    def whole_question(self) -> str:
        """Passage, question and options as one text."""
        return "\n\n".join(filter(None, (self.shown_passage, self.shown_question)))

    @property
    def shown_reference(self) -> str:
        return f"{self.letter}. {self.reference}" if self.letter else self.reference


@dataclass(frozen=True)
class Item(Content):
    """One question to ask. `images` are encoded bytes and are dropped as soon as the question has been asked."""

    images: tuple[bytes, ...] = field(default=(), repr=False)
    group: str = ""
    """Items with the same group are not independent of each other; empty: the images, or the passage, decide."""

    def __post_init__(self) -> None:
        where, fix = f"{self.task}:{self.id}", "Leave the row out of the source, or complete it."
        if not self.question.strip() or not (self.reference.strip() or self.points):
            raise DataError(f"{where} lacks a question or a reference answer.", fix)
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
        if self.group or self.images:
            return self.group or self.image_hashes[0]
        return sha((self.passage or f"{self.task}\n{self.id}").encode())


def with_options(question: str, choices: Sequence[str]) -> str:
    """Return the question with its lettered options."""
    options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n\nChoices:\n".join(filter(None, (question.strip(), "\n".join(options))))


def sha(data: bytes) -> str:
    """Return sixteen hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def content_hash(*parts: Any) -> str:
    """Return the content address of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:24]
