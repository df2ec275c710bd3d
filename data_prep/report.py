"""`data.html`: the manifest for a person, with contact sheets of samples and quarantine. One file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from data_prep.records import Refusal
from data_prep.shards import ShardResult
from medix.files import write_atomically
from medix.pages import environment

NAME: Final = "data.html"
_SAMPLES: Final = 32
_PER_REASON: Final = 6


def write_report(
    manifest: Mapping[str, Any], results: Sequence[ShardResult], refusals: Sequence[Refusal], out: Path
) -> None:
    """Render the report. Every text of a data set is escaped."""
    page = environment(Path(__file__).parent).get_template(f"{NAME}.j2").render(
        m=manifest, samples=_samples(results), quarantine=_by_reason(refusals)
    )  # fmt: skip
    write_atomically(out / NAME, page)


def _samples(results: Sequence[ShardResult]) -> list[dict[str, object]]:
    """Return a few rows from all over the set, those with a thumbnail first."""
    shown: list[dict[str, object]] = [
        {"fact": fact, "thumbnail": result.thumbnails.get(fact.id, "")}
        for result in results
        for fact in result.facts
        if fact.id in result.thumbnails or not fact.sizes
    ]
    step = max(1, len(shown) // _SAMPLES)
    return shown[::step][:_SAMPLES]


def _by_reason(refusals: Sequence[Refusal]) -> list[Refusal]:
    """Return the first few of each reason."""
    reasons = sorted({refusal.reason for refusal in refusals})
    return [one for reason in reasons for one in [r for r in refusals if r.reason == reason][:_PER_REASON]]
