"""What marks a single response as worth a look: judge and embedder at odds, or pay for next to nothing."""

from __future__ import annotations

from typing import Final

from medix_verl.report.rollouts import Group, Response
from medix_verl.report.run_folder import RunFolder, lookup

FAR_COSINE: Final = 0.5
DEFAULT_THRESHOLD: Final = 0.8
"""Of embed_accuracy, where the run's configuration states none."""
SHORT_CHARS: Final = 2
"""An answer with at most so many letters and digits is very short."""


def embedder_near(response: Response, threshold: float = DEFAULT_THRESHOLD) -> bool | None:
    """What the embedder alone would say: the veto of the judge is not its finding. None where it was not asked."""
    cosine = response.value("embed_similarity")
    if cosine is not None:
        return cosine >= threshold
    value = response.value("embed_accuracy")
    return None if value is None or response.why.get("embed_accuracy") in ("guard", "no_answer") else value >= 0.5


def disagree(response: Response, threshold: float = DEFAULT_THRESHOLD) -> bool:
    """Whether judge and embedder differ on this response."""
    near, judged = embedder_near(response, threshold), response.value("llm_accuracy")
    return near is not None and judged is not None and near != (judged >= 0.5)


def embed_threshold(run: RunFolder) -> float:
    value = lookup(run.config, "medix.reward.components.embed_accuracy.threshold")
    return float(value) if isinstance(value, (int, float)) else DEFAULT_THRESHOLD


def judge_yes_but_far(response: Response) -> bool:
    cosine = response.value("embed_similarity")
    return cosine is not None and cosine < FAR_COSINE and (response.value("llm_accuracy") or 0.0) >= 0.5


def short_answer_paid(group: Group, response: Response) -> bool:
    """Paid for accuracy with next to no answer, where the reference asks for more."""
    if response.answer is None:
        return False
    is_paid = max(response.value("llm_accuracy") or 0.0, response.value("embed_accuracy") or 0.0) >= 0.5
    return is_paid and _letters(response.answer) <= SHORT_CHARS < _letters(group.reference)


def _letters(text: str) -> int:
    return sum(char.isalnum() for char in text)
