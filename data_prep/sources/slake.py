"""BoKelvin/SLAKE: bilingual radiology questions; the English ones are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from data_prep.records import Record, Unfit
from data_prep.sources.base import Place, text
from data_prep.sources.hub import HubSource, packed_image

_MODALITIES: Final = {"ct": "CT_SCAN", "mri": "MRI_SCAN", "x-ray": "X_RAY", "xray": "X_RAY"}


class SlakeSource(HubSource):
    """`train.json`, `validation.json`, `test.json`, and the images in `imgs/` or `imgs.zip`."""

    name: ClassVar[str] = "slake"
    repository: ClassVar[str] = "BoKelvin/SLAKE"
    homepage: ClassVar[str] = "https://www.med-vqa.com/slake/"
    licence: ClassVar[str] = "CC-BY-SA-4.0 (as its paper says; the Hub's card says CC-BY-4.0)"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    patterns: ClassVar[tuple[str, ...]] = ("*.json", "imgs.zip")
    columns: ClassVar[tuple[str, ...]] = ("img_name", "question", "answer", "q_lang", "modality")

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        if text(row, "q_lang") != "en":
            return None
        stated = text(row, "modality")
        modality = _MODALITIES.get(stated.lower())
        if modality is None:
            raise Unfit("bad_modality", f"{stated!r}"[:80])
        return Record(
            id=f"{place.split}-{text(row, 'qid', str(place.line))}",
            split=place.split,
            question=text(row, "question"),
            answer=text(row, "answer"),
            images=(packed_image(place.path.parent, ("imgs",), text(row, "img_name")),),
            modality=modality,
        )
