"""The gold answer, written as a perfect response, has to earn everything: a row no policy can win teaches nothing."""

from __future__ import annotations

from medix.response import format_response, parse_response
from medix.sample import Sample


def gold_fault(sample: Sample) -> str | None:
    """Why the reference answer would not be paid in full, or None."""
    parsed = parse_response(format_response(sample.modality, "Reasoning.", sample.answer))
    if parsed.problems:
        return f"a perfect response with it has the problems {', '.join(parsed.problems)}"
    if parsed.scorable_answer != sample.answer:
        return "the parser reads another answer out of a perfect response"
    return None
