"""What answers the questions: an OpenAI-compatible endpoint, a vLLM that is started for the run, or transformers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from evaluation.item import Item


@dataclass(frozen=True)
class Decoding:
    """How responses are decoded. Greedy unless a temperature is given."""

    max_tokens: int | None = None
    """Of a response; None leaves it to each task."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Question:
    """An item with its prompt; `key` is the content address of all that decides the response."""

    key: str
    item: Item
    prompt: str
    max_tokens: int = 2048


@dataclass(frozen=True)
class Answered:
    """A response, or why there is none. Nothing is made up: `text` is None exactly where `error` is set."""

    question: Question
    text: str | None
    finish: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    latency_s: float = 0.0
    error: dict[str, str] | None = None
    """`kind` and `detail`."""


class Backend(Protocol):
    """Asks questions, with a bounded number of them in memory."""

    def identity(self) -> dict[str, Any]:
        """Return what the model is; part of every key."""

    def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        """Yield one `Answered` for each question, in any order."""

    async def aclose(self) -> None: ...
