"""The one parser of policy responses, for training and evaluation alike.

A well-formed response is, in this order and with nothing else but white space between:

    <CT_SCAN><thinking> ... </thinking><answer> ... </answer>

The answer's text is returned as written, only stripped of surrounding white space: units, `<`, `/`, `:` and one-letter
answers are clinical content and are never edited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from medix.modality import is_modality

THINKING_OPEN, THINKING_CLOSE = "<thinking>", "</thinking>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

_TAG = re.compile(r"<([A-Z][A-Z_]*)>")
_BLOCK_TAG = re.compile(r"</?(?:thinking|answer)>")

AMBIGUOUS_PROBLEMS = frozenset({"repeated_answer", "repeated_thinking", "answer_in_thinking", "nested_answer"})
"""Problems that leave open which text is the answer: such a response is never paid for accuracy."""


@dataclass(frozen=True)
class ParsedResponse:
    """What a response says, and everything that is wrong with its form.

    `problems` is empty exactly when the response is well formed.
    """

    modality: str | None
    """Tag without brackets, as written, or None where no tag opens the response."""
    thinking: str | None
    answer: str | None
    """Last complete, non-empty answer block after the thinking closes, or None."""
    problems: tuple[str, ...]

    @property
    def well_formed(self) -> bool:
        return not self.problems

    @property
    def scorable_answer(self) -> str | None:
        """The answer, where it is beyond doubt which text that is."""
        return None if AMBIGUOUS_PROBLEMS & set(self.problems) else self.answer


@lru_cache(maxsize=1024)  # reading, duplicates and log ask for the same response
def parse_response(text: str) -> ParsedResponse:
    """Split a decoded response into modality, thinking and answer. Never raises; linear in `len(text)`."""
    problems: list[str] = []
    modality, after_tag = _read_modality(text, problems)
    thinking, after_thinking = _read_thinking(after_tag, problems)
    answer = None if after_thinking is None else _read_answer(after_thinking, problems)
    return ParsedResponse(modality, thinking, answer, tuple(dict.fromkeys(problems)))


def _read_modality(text: str, problems: list[str]) -> tuple[str | None, str]:
    stripped = text.lstrip()
    match = _TAG.match(stripped)
    if match is None:
        problems.append("missing_modality")
        return None, stripped
    if not is_modality(match[1]):
        problems.append("unknown_modality")
    return match[1], stripped[match.end() :]


def _read_thinking(text: str, problems: list[str]) -> tuple[str | None, str | None]:
    """Return the thinking, and the text after it; the latter is None where the thinking never closes."""
    start = text.find(THINKING_OPEN)
    if start < 0:
        problems.append("missing_thinking")
        return None, text
    if text[:start].strip():
        problems.append("text_before_thinking")
    if ANSWER_OPEN in text[:start]:
        problems.append("nested_answer")
    # The thinking ends at its last closing tag: an answer placed before that is part of the reasoning.
    end = text.rfind(THINKING_CLOSE)
    if end < start:
        problems.append("unclosed_thinking")
        return text[start + len(THINKING_OPEN) :], None
    thinking = text[start + len(THINKING_OPEN) : end]
    if THINKING_OPEN in thinking or THINKING_CLOSE in thinking:
        problems.append("repeated_thinking")
    if ANSWER_OPEN in thinking or ANSWER_CLOSE in thinking:
        problems.append("answer_in_thinking")
    if not thinking.strip():
        problems.append("empty_thinking")
    return thinking.strip(), text[end + len(THINKING_CLOSE) :]


def _read_answer(text: str, problems: list[str]) -> str | None:
    if THINKING_OPEN in text:
        problems.append("repeated_thinking")
    opens, closes = text.count(ANSWER_OPEN), text.count(ANSWER_CLOSE)
    if opens > 1 or closes > 1:
        problems.append("repeated_answer")
    end = text.rfind(ANSWER_CLOSE)
    start = text.rfind(ANSWER_OPEN, 0, end) if end >= 0 else -1
    if start < 0:
        problems.append("unclosed_answer" if opens else "missing_answer")
        return None
    if text[:start].strip() or text[end + len(ANSWER_CLOSE) :].strip():
        problems.append("text_outside_blocks")
    answer = text[start + len(ANSWER_OPEN) : end].strip()
    if _BLOCK_TAG.search(answer):
        problems.append("nested_answer")
    if not answer:
        problems.append("empty_answer")
    return answer or None


def format_response(modality: str | None, thinking: str, answer: str) -> str:
    """Render a well-formed response; the inverse of `parse_response`. Text-only samples use the tag OTHER."""
    tag = modality or "OTHER"
    return f"<{tag}>{THINKING_OPEN}{thinking}{THINKING_CLOSE}{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"
