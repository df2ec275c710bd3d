"""A picture cut from a source image, with all that is needed to ask about it and to prove where it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from numpy import uint8
from numpy.typing import NDArray

SIDE = 112
"""Pixels per side of every picture: sixteen image tokens of 28 px."""


@dataclass(frozen=True)
class Cut:
    """The box of the source that a picture shows; half-open, in the source file's own pixel indices."""

    package: str
    file: str
    axes: str
    """One letter per number: x (columns), y (rows), z (slices), t (frames or samples), c (leads)."""
    low: tuple[int, ...]
    high: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Fact:
    """Something true of a picture: the topic it answers, and the answer."""

    topic: str
    answer: str


@dataclass(frozen=True)
class Picture:
    """[112, 112, 3] pixels and what is known of them."""

    family: str
    split: str
    modality: str
    pixels: NDArray[uint8]
    cut: Cut
    provenance: str
    """One sentence: source, and what was done to it. Says `synthetic` where pixels were drawn or computed."""
    facts: tuple[Fact, ...]
