"""Files of foreign folders: what an alias of YAML may grow to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from medix.errors import DataError
from medix.files import hold_folder, open_to_append, read_mapping, write_atomically
from medix.jsonl import JsonlWriter


@pytest.mark.parametrize("write", [
    lambda path: write_atomically(path, "x"),
    open_to_append,
    JsonlWriter,
    lambda path: hold_folder(path.parent, "x").__enter__(),
])  # fmt: skip
def test_nothing_is_written_through_a_link(write: Callable[[Path], object], tmp_path: Path) -> None:
    """A foreign folder may bring a link in the place of each file that a command writes, locks included."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "x.lock").symlink_to("precious")
    with contextlib.suppress(OSError):
        write(tmp_path / "x.lock")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)),
        "a: &a\n  b: *a\n",
        "a: !!timestamp foo\n",
        "a: !!bool foo\n",
        "a: !!int ''\n",
        "a: !!float x\n",
        "? [a]\n: b\n",
        "a: 2026-99-99\n",
    ],
    ids=["3 to the 29th", "itself", "timestamp", "bool", "int", "float", "a list as a key", "a date out of range"],
)
def test_aliases_that_grow_and_tags_that_do_not_fit_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=r"config.yaml"):
        read_mapping(tmp_path / "config.yaml")


def test_a_few_aliases_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: &a {b: 1}\nc: [*a, *a]\n")
    assert read_mapping(tmp_path / "config.yaml") == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}
