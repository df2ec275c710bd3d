"""A perfect response with the reference answer has to earn everything: a row that no policy can win teaches nothing."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from medix.errors import MedixError
from medix.response import format_response, parse_response
from medix.sample import Sample


def reference_fault(sample: Sample) -> str | None:
    """Why the reference answer would not be paid in full, or None.

    The components are those of the `strict` preset; judge and embedder are taken to agree, so what is left is what the
    components themselves find.
    """
    from reward_fns import ScoringInput

    response = format_response(sample.modality, "Reasoning.", sample.reference)
    parsed = parse_response(response)
    if parsed.problems:
        return f"a perfect response with it has the problems {', '.join(parsed.problems)}"
    if parsed.scorable_answer != sample.reference:
        return "the parser reads another answer out of a perfect response"
    item = ScoringInput(
        response, sample.reference, sample.question, sample.modality, sample.aliases, sample.answer_kind, sample.id
    )
    loop, composite = _scoring()
    try:
        score = loop.run_until_complete(composite.score(item))
    except MedixError as error:
        return f"a component fails on it: {type(error).__name__}"
    short = [name for name, part in score.components.items() if part.applicable and part.value < 1.0]
    return f"it earns {score.total:.3f}; less than 1 from {', '.join(short)}" if short else None


@functools.cache
def _scoring() -> tuple[asyncio.AbstractEventLoop, Any]:
    """A loop and a composite of this process: starting a loop for each row would cost more than the scoring."""
    from reward_fns import AssumedScorers, build_composite

    return asyncio.new_event_loop(), build_composite({"preset": "strict"}, AssumedScorers(judge_says=True, cosine=1.0))
