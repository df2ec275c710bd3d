"""The manifest: what went in, what came out, what was left out and why. Written last: it stands for a whole set."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from data_prep.records import REASONS, Refusal
from data_prep.rows import RowFacts
from data_prep.settings import Settings
from data_prep.sources import Source
from data_prep.tokens import read_geometry
from medix import __version__
from medix.errors import DataError
from medix.files import read_mapping
from medix.prompts import load_prompt

NAME: Final = "manifest.json"
FORMAT: Final = 2
_PACKAGES: Final = ("pyarrow", "pillow", "numpy", "ImageHash", "datasketch", "tokenizers")
_TOKEN_EDGES: Final = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_PIXEL_EDGES: Final = tuple(2**power for power in range(12, 27, 2))


def file_facts(path: Path, root: Path) -> dict[str, Any]:
    """Return name, size in bytes and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    name = str(path.relative_to(root)) if path.is_relative_to(root) and path != root else path.name
    return {"name": name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def source_facts(source: Source) -> dict[str, Any]:
    """Return where the rows come from, and what was taken for what in them."""
    return {
        "specification": source.specification,
        "name": source.label,
        "licence": source.options.get("licence", source.set.licence),
        "homepage": source.set.home,
        "revision": source.revision,
        "files": [file_facts(path, source.root) for path in source.files()],
        "recognised": source.recognised(),
        "passed_over": list(source.passed_over),
    }


def inputs(settings: Settings, sources: Sequence[Source]) -> dict[str, Any]:
    """Return what was asked for: settings, sources, the prompt file, and the model's files that counts depend on."""
    prompt = Path(settings.prompt)
    asked = {
        "settings": dataclasses.asdict(settings),
        "sources": [source_facts(source) for source in sources],
        "model": _model_facts(settings),
        "prompt": file_facts(prompt, prompt.parent) | {"text": load_prompt(prompt)},
    }
    found: dict[str, Any] = json.loads(json.dumps(asked))  # as a manifest that was written is read back
    return found


def build(
    asked: Mapping[str, Any],
    kept: Sequence[RowFacts],
    refusals: Sequence[Refusal],
    left_out: Mapping[str, int],
    dedupe: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Return the manifest's content. It holds no time and no place, so that equal input gives equal bytes."""
    splits = sorted({fact.split for fact in kept})
    reasons = rows_by_reason(refusals)
    aside = reasons.total()
    return {
        "format": FORMAT,
        **asked,
        "versions": {"medix": __version__, "python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        "splits": {s: _split_facts([f for f in kept if f.split == s], out / f"{s}.parquet") for s in splits},
        "rows": {"read": len(kept) + aside, "kept": len(kept), "quarantined": aside},
        "quarantine": file_facts(out / "quarantine.jsonl", out)
        | {"reasons": {r: {"rows": n, "meaning": REASONS[r]} for r, n in sorted(reasons.items())}},
        "left_out": dict(sorted(left_out.items())),
        "dedupe": dict(dedupe),
    }


def rows_by_reason(refusals: Iterable[Refusal]) -> Counter[str]:
    """Return the rows set aside for each reason."""
    counts: Counter[str] = Counter()
    for refusal in refusals:
        counts[refusal.reason] += refusal.rows
    return counts


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _split_facts(facts: Sequence[RowFacts], path: Path) -> dict[str, Any]:
    tokens = [fact.n_tokens for fact in facts]
    areas = [width * height for fact in facts for width, height in fact.sizes]
    return file_facts(path, path.parent) | {
        "rows": len(facts),
        "sources": _counts(fact.source for fact in facts),
        "modalities": _counts(fact.modality or "none" for fact in facts),
        "answer_kinds": _counts(fact.answer_kind for fact in facts),
        "images_per_row": _counts(str(len(fact.sizes)) for fact in facts),
        "image_actions": _counts(action for fact in facts for action in fact.actions),
        "notes": _counts(note for fact in facts for note in fact.notes),
        "n_tokens": {"min": min(tokens), "max": max(tokens), "histogram": histogram(tokens, _TOKEN_EDGES)},
        "pixels": {"min": min(areas), "max": max(areas), "histogram": histogram(areas, _PIXEL_EDGES)} if areas else {},
    }


def histogram(values: Iterable[int], edges: Sequence[int]) -> dict[str, int]:
    """Return counts by `<= edge`, each value in the first bin it fits."""
    counts = Counter(bisect.bisect_left(edges, value) for value in values)
    names = [*(f"<= {edge}" for edge in edges), f"> {edges[-1]}"]
    return {names[place]: counts[place] for place in sorted(counts)}


def _model_facts(settings: Settings) -> dict[str, Any]:
    """Return what the token counts depend on; empty if none were made."""
    if settings.model is None:
        return {}
    model = Path(settings.model)
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json")
    files = [file_facts(model / name, model) for name in names if (model / name).is_file()]
    return {"geometry": dataclasses.asdict(read_geometry(model)), "files": files}


def read(out: Path) -> dict[str, Any]:
    """Return the manifest of a finished set."""
    path = out / NAME
    if not path.is_file():
        raise DataError(
            f"{out} holds no finished set: it has no {NAME}.",
            "Run medix prepare again: it goes on where it stopped.",
        )
    value = read_mapping(path)
    if value.get("format") != FORMAT:
        raise DataError(f"{path} is not of format {FORMAT}.", "Prepare the set again with --overwrite.")
    return value


def verify(out: Path) -> dict[str, Any]:
    """Check the files of a finished set against its manifest, byte by byte; return the manifest.

    Raises:
        DataError: the first thing that is wrong.
    """
    manifest = read(out)
    for stated in (*manifest["splits"].values(), manifest["quarantine"], manifest["report"]):
        path = out / stated["name"]
        fix = "Prepare the set again with --overwrite."
        if not path.is_file():
            raise DataError(f"{path} is missing.", fix)
        found = file_facts(path, out)
        for key in ("bytes", "sha256"):
            if found[key] != stated[key]:
                raise DataError(f"{path} has {key} {found[key]}, the manifest says {stated[key]}.", fix)
    return manifest
