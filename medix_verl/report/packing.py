"""The rollouts as the page holds them: an index of all groups, and the texts a step at a time, packed.

A step's texts are unpacked by the browser when one of its groups is looked at, so that the page opens at once.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from medix_verl.report.flags import disagree, embed_threshold, judge_yes_but_far, short_answer_paid
from medix_verl.report.rollouts import Group, Response
from medix_verl.report.run_folder import RunFolder
from medix_verl.report.series import KNOWN_COMPONENTS, SCORE, is_component

MAX_PACKED_BYTES: Final = 22_000_000
"""Of all packed texts and thumbnails, as they stand in the page: with the rest it stays under 25 MB."""
FLAGS: Final = ("disagree", "no_spread", "judge_far", "short_paid")
"""Bit 0, 1, 2, 3 of a group's flags."""


@dataclass(frozen=True)
class PackedRollouts:
    index: str
    """Base64 of gzipped JSON, see `_index`."""
    chunks: dict[int, str]
    """Step -> base64 of gzipped JSON: {split/uid: [response, ...]}."""


def pack_rollouts(run: RunFolder, images: dict[str, list[str]]) -> PackedRollouts:
    """Everything that the rollout browser needs; where texts are too many, an even choice of steps keeps them."""
    by_step: dict[int, list[Group]] = {}
    for group in run.groups:
        by_step.setdefault(group.step, []).append(group)
    keys = score_keys(run.groups)
    chunks, spent = {}, sum(len(uri) for uris in images.values() for uri in uris)
    for step in spread_out(list(by_step)):
        packed = pack({_key(group): [_response(r, keys) for r in group.responses] for group in by_step[step]})
        if spent + len(packed) > MAX_PACKED_BYTES:
            continue
        chunks[step], spent = packed, spent + len(packed)
    if len(chunks) < len(by_step):
        run.notes.append(
            f"the texts of {len(chunks)} out of {len(by_step)} steps are in this page, to keep it small; "
            "all are in rollouts/scored.jsonl"
        )
    return PackedRollouts(pack(_index(run, keys, images, set(chunks))), dict(sorted(chunks.items())))


def pack(content: object) -> str:
    """Base64 of gzipped JSON; the same content always gives the same text."""
    return pack_text(json.dumps(content, separators=(",", ":")))


def pack_text(text: str) -> str:
    """Base64 of a gzipped text, which the browser unpacks by itself."""
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def spread_out(steps: list[int]) -> list[int]:
    """The same steps in an order whose every beginning is spread over the run: last, first, middle, quarters ..."""
    order = dict.fromkeys([*steps[-1:], *steps[:1]])
    parts = 2
    while len(order) < len(steps):
        order |= dict.fromkeys(steps[len(steps) * i // parts] for i in range(1, parts))
        parts *= 2
    return list(order)


def score_keys(groups: Iterable[Group]) -> list[str]:
    """Names of all scores: the total, the components, then the rest."""
    found = {key for group in groups for response in group.responses[:1] for key in response.scores} - {"answer_hash"}
    components: list[str] = [name for name in KNOWN_COMPONENTS if name in found]
    components += sorted(name for name in found - set(components) if is_component(name))
    return [SCORE, *components, *sorted(found - {SCORE, *components})]


def _index(run: RunFolder, keys: list[str], images: dict[str, list[str]], kept: set[int]) -> dict[str, Any]:
    threshold = embed_threshold(run)
    samples: dict[tuple[str, str, str, str], int] = {}
    rows = []
    for group in run.groups:
        sample = (group.sample_id, group.question, group.reference, group.modality)
        number = samples.setdefault(sample, len(samples))
        rows.append(
            [
                _key(group), group.step, int(group.is_training), number, len(group.responses), _short(group.mean),
                _short(group.std), _flags(group, threshold), int(group.step in kept),
            ]
        )  # fmt: skip
    return {
        "keys": keys,
        "components": [key for key in keys if is_component(key)],
        "samples": [list(sample) for sample in samples],
        "with_images": [int(sample[0] in images) for sample in samples],
        "groups": rows,
    }


def _flags(group: Group, threshold: float) -> int:
    found = (
        any(disagree(response, threshold) for response in group.responses),
        group.no_spread,
        any(judge_yes_but_far(response) for response in group.responses),
        any(short_answer_paid(group, response) for response in group.responses),
    )
    return sum(flag << bit for bit, flag in enumerate(found))


def _response(response: Response, keys: list[str]) -> dict[str, Any]:
    return {
        "s": response.session,
        "t": response.text,
        "cut": response.cut_chars,
        "v": [_short(response.scores[key]) if key in response.scores else None for key in keys],
        "adv": None if response.advantage is None else _short(response.advantage),
        "p": list(response.problems),
        "judge": response.verdict,
        "raw": response.raw,
        "sec": _short(response.judge_s),
        "tries": response.attempts,
        "why": response.why,
        "line": response.line,
    }


def _key(group: Group) -> str:
    return f"{group.step}/{group.uid}" if group.is_training else f"{group.step}/{group.split}/{group.uid}"


def _short(value: float) -> float:
    return float(f"{value:.5g}") if math.isfinite(value) else 0.0
