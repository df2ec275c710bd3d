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
