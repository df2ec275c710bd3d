"""RadGenome/PMC-VQA: multiple-choice questions on figures of PubMed Central."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from data_prep.records import Record, Unfit
from data_prep.sources.base import Place, text
from data_prep.sources.hub import HubSource, choice_answer, choice_question, packed_image

_LETTER: Final = re.compile(r"^\s*([A-D])\s*[:.)]\s*")


class PmcVqaSource(HubSource):
    """`train.csv` and `test.csv` (first version), `train_2.csv` and `test_2.csv` (second), images beside them."""

    name: ClassVar[str] = "pmc_vqa"
    repository: ClassVar[str] = "RadGenome/PMC-VQA"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/RadGenome/PMC-VQA"
    licence: ClassVar[str] = "CC-BY-SA-4.0"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    patterns: ClassVar[tuple[str, ...]] = ("*.csv", "*.zip")
    columns: ClassVar[tuple[str, ...]] = ("Figure_path", "Question", "Answer", "Choice A", "Choice B")

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        options = {c: _LETTER.sub("", text(row, f"Choice {c}", "")).strip() for c in "ABCD"}
        options = {letter: option for letter, option in options.items() if option}
        answer, aliases = choice_answer(self._letter(row, options), options)
        folders = ("figures", "images_2", "images") if "2" in place.path.stem else ("images", "figures")
        return Record(
            id=place.fallback_id,
            split=place.split,
            question=choice_question(text(row, "Question"), options),
            answer=answer,
            images=(packed_image(place.path.parent, folders, text(row, "Figure_path")),),
            answer_kind="choice",
            aliases=aliases,
        )

    def _letter(self, row: Mapping[str, Any], options: Mapping[str, str]) -> str:
        """The right option; the versions name it by letter, by text, or by both."""
        for name in ("Answer_label", "Answer"):
            stated = text(row, name, "")
            if stated in options:
                return stated
            if match := _LETTER.match(stated):
                return match[1]
        by_text = [letter for letter, option in options.items() if option == text(row, "Answer")]
        if len(by_text) != 1:
            raise Unfit("no_answer", "the answer is none of the choices")
        return by_text[0]
