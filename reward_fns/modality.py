"""Pays for naming the imaging modality in the opening tag. Does not apply to samples without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reward_fns.component import ComponentScore, ScoringInput
from reward_fns.reading import READINGS, ReadingName
from reward_fns.scorers.types import Scorers


@dataclass(frozen=True)
class Modality:
    """1 for the sample's own tag, else 0."""

    needs: ClassVar[frozenset[str]] = frozenset()
    reading: ReadingName = "strict"

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        matches = READINGS[self.reading](item).modality_matches
        return ComponentScore(float(bool(matches)), applicable=matches is not None)
