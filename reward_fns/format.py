"""Pays for the form: one thinking block, then one answer block, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reward_fns.component import ComponentScore, ScoringInput
from reward_fns.reading import READINGS, ReadingName
from reward_fns.scorers.types import Scorers


@dataclass(frozen=True)
class Format:
    """1 for a well-formed response, else 0. The opening tag is the modality component's business."""

    needs: ClassVar[frozenset[str]] = frozenset()
    reading: ReadingName = "strict"

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        reading = READINGS[self.reading](item)
        return ComponentScore(float(reading.well_formed), details={"problems": list(reading.problems)})
