"""Where datasets of the Hugging Face Hub are found: in a local mirror, or fetched by revision over a network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from data_prep.records import ArchivedImage, ImageFile, ImageRef, Unfit
from data_prep.sources.base import Source, tables_under
from medix.errors import ConfigError

MIRROR: Final = "MEDIX_DATA_MIRROR"
"""Environment variable: a folder that holds `OWNER/NAME` folders, as `hf download --repo-type dataset` writes them."""
LETTERS: Final = "ABCDEFGHIJ"


class HubSource(Source):
    """A dataset with a repository on the Hub; `NAME:PATH` names a downloaded copy."""

    repository: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    patterns: ClassVar[tuple[str, ...]] = ("*.parquet",)
    """Files to fetch."""
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "val", "val": "val"}
    """A benchmark's test split is never trained on unless `?splits=` says so."""
    evaluation_splits: ClassVar[tuple[str, ...] | None] = ("validation", "val", "dev", "test")

    def files(self) -> Iterator[tuple[Path, str]]:
        yield from tables_under(self.root, self.suffixes)

    @classmethod
    def default_root(cls, revision: str) -> Path:
        mirror = os.environ.get(MIRROR)
        if mirror and (folder := Path(mirror).expanduser() / cls.repository).is_dir():
            return folder
        if os.environ.get("HF_HUB_OFFLINE") == "1":
            raise ConfigError(
                f"the dataset {cls.repository}",
                f"none in {MIRROR}={mirror or ''} and HF_HUB_OFFLINE=1",
                f"copy it and write {cls.name}:PATH, or set {MIRROR}",
            )
        try:
            from huggingface_hub import snapshot_download
        except ImportError as error:
            raise ConfigError("huggingface_hub", "not installed", "pip install 'medix[cpu]' or [gpu]") from error
        fetched = snapshot_download(
            cls.repository, repo_type="dataset", revision=revision or None, allow_patterns=list(cls.patterns)
        )
        return Path(fetched)


def choice_question(question: str, options: Mapping[str, str]) -> str:
    """The question with its options, one a line."""
    return question.strip() + "\n" + "\n".join(f"{letter}. {option.strip()}" for letter, option in options.items())


def choice_answer(letter: str, options: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The right option's text as the answer, its letter with and without the text as aliases."""
    if letter not in options:
        raise Unfit("no_answer", f"{letter!r} is none of the options {', '.join(options)}")
    answer = options[letter].strip()
    return answer, (letter, f"{letter}. {answer}")


def lettered(options: list[Any]) -> dict[str, str]:
    """Options in order -> by letter."""
    if len(options) < 2 or len(options) > len(LETTERS) or not all(isinstance(o, str) and o.strip() for o in options):
        raise Unfit("bad_field", "the options are not two to ten texts")
    return dict(zip(LETTERS, options, strict=False))


def packed_image(root: Path, folders: tuple[str, ...], name: str) -> ImageRef:
    """An image in one of the folders, or in a ZIP file of the same name where it was not unpacked."""
    for folder in folders:
        if (root / folder).is_dir():
            return ImageFile(root / folder, name)
    for folder in folders:
        if (archive := root / f"{folder}.zip").is_file():
            return ArchivedImage(archive, f"{folder}/{name}")
    return ImageFile(root / folders[0], name)
