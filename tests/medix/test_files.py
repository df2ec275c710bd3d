"""Files of foreign folders: what an alias of YAML may grow to."""

from __future__ import annotations

from pathlib import Path

import pytest

from medix.errors import DataError
from medix.files import read_mapping


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)),
        "a: &a\n  b: *a\n",
    ],
    ids=["3 to the 29th", "itself"],
)
def test_aliases_that_grow_without_bound_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=r"config.yaml"):
        read_mapping(tmp_path / "config.yaml")


def test_a_few_aliases_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: &a {b: 1}\nc: [*a, *a]\n")
    assert read_mapping(tmp_path / "config.yaml") == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}
