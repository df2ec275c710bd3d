"""MBZUAI/medix-rl-data: the training set of MediX-R1 (51,335 rows to train, 2,451 to validate)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from data_prep.records import Record
from data_prep.sources.base import Place, image_refs, text
from data_prep.sources.hub import HubSource
from medix.prompts import IMAGE_SLOT

_TAGGED = re.compile(r"\s*<([A-Z][A-Z_]*)>(.*)", re.DOTALL)


class MedixRlSource(HubSource):
    """Columns `id`, `image` (a list), `source`, `problem`, `solution` = `<TAG> answer`."""

    name: ClassVar[str] = "medix_rl"
    repository: ClassVar[str] = "MBZUAI/medix-rl-data"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/MBZUAI/medix-rl-data"
    licence: ClassVar[str] = "cc (as its card says; each origin has its own)"
    columns: ClassVar[tuple[str, ...]] = ("id", "image", "problem", "solution")
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "test": "val"}

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        solution = text(row, "solution")
        tagged = _TAGGED.fullmatch(solution)
        answer = tagged[2].strip() if tagged else solution
        origin = text(row, "source", "")
        return Record(
            id=text(row, "id", place.fallback_id),
            split=place.split,
            # Slots in the text are the set's own placeholders; ours are written anew, one an image.
            question=text(row, "problem").replace(IMAGE_SLOT, "").strip(),
            answer=answer,
            images=image_refs(row["image"], place.path.parent),
            modality=tagged[1] if tagged else None,
            answer_kind="choice" if re.fullmatch(r"[A-F]", answer) else "open",
            source=f"{self.label}/{origin}" if origin else None,
        )
