"""The noun of the evaluation: one benchmark question, with all that is needed to ask it and to score the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from data_prep.records import Refusal
from medix.errors import DataError

ItemKind = Literal["open", "closed", "choice", "report"]
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
    """Reference answer: the text, for choice questions the text of the right option."""
    kind: ItemKind = "open"
    images: tuple[bytes, ...] = field(default=(), repr=False)
    choices: tuple[str, ...] = ()
    letter: str = ""
    """Of the right option; empty unless `kind` is choice."""
    passage: str = ""
    modality: str | None = None
    aliases: tuple[str, ...] = ()
    group: str = ""
    """Items with the same group are not independent of each other; empty: the images, or the passage, decide."""

    def __post_init__(self) -> None:
        if not self.question.strip() or not self.reference.strip():
            raise DataError("a question and a reference answer", f"an empty one in {self.task}:{self.id}", "drop it")
        if self.kind not in ITEM_KINDS:
            raise DataError(f"a kind out of {', '.join(ITEM_KINDS)}", repr(self.kind), "correct the loader")
        if self.kind == "choice" and (
            self.letter not in LETTERS[: len(self.choices)]
            or self.choices[LETTERS.index(self.letter)] != self.reference
        ):
            raise DataError(
                f"a letter out of {LETTERS[: len(self.choices)]} whose option is the reference answer",
                f"{self.letter!r} in {self.task}:{self.id}",
                "correct the loader",
            )

    @property
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
        """All but the image bytes, as it is written beside the response."""
        return {
            "task": self.task,
            "id": self.id,
            "kind": self.kind,
            "question": self.question,
            "reference": self.reference,
            "aliases": list(self.aliases),
            "choices": list(self.choices),
            "letter": self.letter,
            "passage": self.passage,
            "modality": self.modality,
            "cluster": self.cluster,
            "images": list(self.image_hashes),
        }


def sha(data: bytes) -> str:
    """Sixteen hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def content_hash(*parts: Any) -> str:
    """Content address of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:24]


def with_stable_ids(items: Iterable[Item | Refusal]) -> Iterator[Item | Refusal]:
    """Give items without an id one made of their content; true duplicates are told apart by a counter."""
    seen: dict[str, int] = {}
    for item in items:
        if isinstance(item, Refusal):
            yield item
            continue
        base = (
            item.id or content_hash(item.question, item.reference, item.choices, item.passage, item.image_hashes)[:16]
        )
        seen[base] = seen.get(base, 0) + 1
        yield replace(item, id=base if seen[base] == 1 else f"{base}-{seen[base]}")
