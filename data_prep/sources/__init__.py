"""Data sources: each yields samples. A new one is a file beside these and a line in `SOURCES`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from medix.errors import ConfigError

if TYPE_CHECKING:
    from data_prep.sources.base import Source

SOURCES: Final[dict[str, str]] = {
    "sample": "data_prep.sources.sample:SampleSource",
    "jsonl": "data_prep.sources.jsonl:JsonlSource",
    "csv": "data_prep.sources.csv_table:CsvSource",
    "parquet": "data_prep.sources.parquet_table:ParquetSource",
    "image_folder": "data_prep.sources.image_folder:ImageFolderSource",
    "dicom": "data_prep.sources.dicom:DicomSource",
    "medix_rl": "data_prep.sources.medix_rl:MedixRlSource",
    "vqa_rad": "data_prep.sources.image_question:VqaRadSource",
    "slake": "data_prep.sources.slake:SlakeSource",
    "path_vqa": "data_prep.sources.image_question:PathVqaSource",
    "pmc_vqa": "data_prep.sources.pmc_vqa:PmcVqaSource",
    "medqa": "data_prep.sources.text_choice:MedQaSource",
    "medmcqa": "data_prep.sources.text_choice:MedMcqaSource",
    "pubmedqa": "data_prep.sources.pubmedqa:PubMedQaSource",
    "mmlu_medical": "data_prep.sources.text_choice:MmluMedicalSource",
}
"""Name -> `module:class`; imported only when used."""


def open_source(specification: str) -> Source:
    """Bind a source to its place: `NAME`, `NAME:PATH`, `NAME:PATH?option=value&option=value`.

    `revision` is the one option that all have: the dataset's git revision, written to the manifest.

    Raises:
        ConfigError: there is no such source, or nothing at its path.
    """
    from difflib import get_close_matches

    head, _, query = specification.partition("?")
    name, _, path = head.partition(":")
    if name not in SOURCES:
        close = get_close_matches(name, SOURCES, 1)
        raise ConfigError(
            f"a source out of {', '.join(SOURCES)}",
            repr(name),
            f"did you mean {close[0]!r}?" if close else f"for a local file write e.g. jsonl:{name}",
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    module, _, attribute = SOURCES[name].partition(":")
    source_class: type[Source] = getattr(importlib.import_module(module), attribute)
    revision = options.pop("revision", "")
    root = Path(path).expanduser() if path else source_class.default_root(revision)
    if not root.exists():
        raise ConfigError(f"the files of source {name!r}", f"nothing at {root}", f"correct {name}:PATH")
    return source_class(root, revision, tuple(sorted(options.items())))
