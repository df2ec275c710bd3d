"""What a reward component gets and gives. A component is any callable of this shape:

    async def brevity(item: ScoringInput, scorers: Scorers) -> ComponentScore: ...

A component states nothing about weights, never loads a model, and raises instead of scoring when a scorer fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from reward_fns.scorers.types import Scorers


@dataclass(frozen=True)
class ScoringInput:
    """One response of the policy and what it is scored against."""

    response: str
    """Decoded text, as the policy wrote it."""
    reference: str
    """What the answer is held against."""
    question: str = ""
    modality: str | None = None
    """Tag without brackets, or None if the sample has none (text only)."""
    aliases: tuple[str, ...] = ()
    """Other accepted wordings of `reference`."""
    answer_kind: str = "open"
    sample_id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The row's other columns by name: what else `extra_info` of a prepared file, or a row of `medix score`, holds."""
    load_images: Callable[[], Sequence[bytes]] = field(default=tuple, compare=False, repr=False)
    """Reads the sample's images; called once, when a component first asks for `images`."""

    @cached_property
    def images(self) -> tuple[bytes, ...]:
        """The sample's images in order, as PNG or JPEG bytes; read at first use."""
        return tuple(self.load_images())


@dataclass(frozen=True)
class ComponentScore:
    """One component's finding."""

    value: float
    """In [0, 1]."""
    applicable: bool = True
    """If False, the component drops out for this response and the other weights are scaled up."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able reasons, for the log of scored responses."""


class Component(Protocol):
    """A component with its options. `needs` names what it asks of the scorers: `judge`, `similarity`, or neither."""

    @property
    def needs(self) -> frozenset[str]: ...

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore: ...
