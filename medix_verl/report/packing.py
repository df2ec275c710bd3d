"""The rollouts as the page carries them: an outline of all groups, and their texts, packed a step at a time.

A step's texts are unpacked by the browser when one of its groups is looked at, so that the page opens at once.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import asdict
from typing import Any, Final

from medix_verl.report.rollouts import Group
from medix_verl.report.run_folder import RunFolder

MAX_PACKED_BYTES: Final = 22_000_000
"""Of all packed texts and thumbnails, as they stand in the page: with the rest it stays under 25 MB."""


def pack_rollouts(run: RunFolder, images: dict[str, list[str]]) -> tuple[str, dict[int, str]]:
    """Pack what the rollout browser needs; if there are too many texts, an even choice of steps keeps them.

    Returns:
        The packed index of all groups, and step -> packed {key of a group: [response, ...]}.
    """
    by_step: dict[int, list[Group]] = {}
    for group in run.groups:
        by_step.setdefault(group.step, []).append(group)
    chunks, spent = {}, sum(len(uri) for uris in images.values() for uri in uris)
    for step in spread_out(list(by_step)):
        packed = pack({group.key: [asdict(response) for response in group.responses] for group in by_step[step]})
        if spent + len(packed) <= MAX_PACKED_BYTES:
            chunks[step], spent = packed, spent + len(packed)
    if len(chunks) < len(by_step):
        run.notes.append(
            f"the texts of {len(chunks)} out of {len(by_step)} steps are in this page, to keep it small; "
            "all are in rollouts/scored.jsonl"
        )
    return pack([_outline(group, group.step in chunks) for group in run.groups]), dict(sorted(chunks.items()))


def pack(content: object) -> str:
    """Return base64 of gzipped JSON; the same content always gives the same text."""
    return pack_text(json.dumps(content, separators=(",", ":")))


def pack_text(text: str) -> str:
    """Return base64 of a gzipped text, which the browser unpacks by itself."""
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def spread_out(steps: list[int]) -> list[int]:
    """Return the steps in an order whose every beginning is spread over the run: last, first, middle, quarters ..."""
    order = dict.fromkeys([*steps[-1:], *steps[:1]])
    parts = 2
    while len(order) < len(steps):
        order |= dict.fromkeys(steps[len(steps) * i // parts] for i in range(1, parts))
        parts *= 2
    return list(order)


def _outline(group: Group, is_kept: bool) -> dict[str, Any]:
    """Return what the list of groups shows and is filtered by."""
    flags = sorted(set().union(*(group.flags(response) for response in group.responses)))
    return {
        "key": group.key,
        "step": group.step,
        "training": group.is_training,
        "id": group.sample_id,
        "question": group.question,
        "reference": group.reference,
        "modality": group.modality,
        "size": len(group.responses),
        "mean": round(group.mean, 4),
        "std": round(group.std, 4),
        "flags": [*flags, *(["no_spread"] if group.no_spread else [])],
        "kept": is_kept,
    }
