"""Names of the parts of a data set: one table, for files, folders and columns."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TRAIN, VAL, TEST = "train", "val", "test"
_WORDS: Final[dict[str, str]] = {
    TRAIN: "train training trainset trn traindata entrenamiento entrainement treino 训练 训练集",
    VAL: "val valid validate validation validating valset validset validationset dev devel development devset "
    "validación validierung validação 验证 验证集",
    TEST: "test testing testset tests testdata eval evaluation evalset holdout heldout heldoutset unseen prueba teste "
    "测试 测试集",
}
SPLITS: Final[dict[str, str]] = {word: split for split, words in _WORDS.items() for word in words.split()}
"""Every known word -> `train`, `val` or `test`."""


def split_of_word(word: str, own: Mapping[str, str] | None = None) -> str | None:
    """Return the split that a word of a column names, or None if it is in no table.

    Args:
        own: further words, or other meanings of them; `skip` leaves rows out.
    """
    plain = word.strip().lower()
    return (own or {}).get(plain) or SPLITS.get(re.sub(r"[\W\d_]", "", plain))


def splits_in(name: str, own: Mapping[str, str] | None = None) -> set[str]:
    """Return the splits that words of a file's or folder's name stand for, as in `VQAMed2019_Test_Questions`."""
    own = own or {}
    if name.lower() in own:
        return {own[name.lower()]}
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = re.split(r"[\W\d_]+", spaced)
    pairs = ["".join(pair) for pair in itertools.pairwise(words)]  # held out, hold out
    return {own.get(word) or SPLITS[word] for word in (*words, *pairs) if word in own or word in SPLITS}


def split_of_path(path: Path, root: Path, own: Mapping[str, str] | None = None) -> set[str]:
    """Return the splits named by a file, or else by the nearest folder above it up to `root`."""
    top = root if path != root else path.parent
    for name in (path.stem, *reversed(path.relative_to(top).parent.parts)):
        if found := splits_in(name, own):
            return found
    # The source's own folder counts where its whole name is such a word, as in Testing/rows.jsonl.
    return {split} if (split := split_of_word(top.name, own)) else set()
