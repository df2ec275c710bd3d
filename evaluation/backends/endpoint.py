"""Any OpenAI-compatible endpoint, or several that serve the same model."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable
from typing import Any

from evaluation.backends import Answered, Decoding, Question
from evaluation.concurrency import run_bounded
from evaluation.prompting import content_parts
from medix.errors import EvaluationError
from reward_fns.scorers.chat import OVERFLOW_WORDS, ChatClient, Message, Sampling, user_message
from reward_fns.scorers.endpoints import EndpointOptions
from reward_fns.scorers.retry import EndpointError

IMAGE_KINDS = ((b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"), (b"BM", "bmp"), (b"II*", "tiff"))


class EndpointBackend:
    """One client for the run. Use from one event loop.

    Raises:
        ConfigError: no URL, or the key's environment variable is not set.
    """

    def __init__(self, options: EndpointOptions, model: str, decoding: Decoding, deadline_s: float) -> None:
        self.model, self.decoding, self.deadline_s = model, decoding, deadline_s
        self.width = options.max_in_flight
        self.client = ChatClient(options, model, where="--model-url")

    def identity(self) -> dict[str, Any]:
        # Not the address: the same model behind another one gives the same answers.
        return {"backend": "endpoint", "model": self.model}

    async def check(self) -> None:
        await check_client(self.client, "--model-url and --model")

    def answer(self, questions: Iterable[Question]) -> AsyncIterator[Answered]:
        return run_bounded(questions, self._ask, self.width)

    async def _ask(self, question: Question) -> Answered:
        d = self.decoding
        sampling = Sampling(question.max_tokens, d.temperature, d.top_p, d.seed)
        try:
            reply = await self.client.complete(chat_messages(question), sampling, self.deadline_s)
        except EndpointError as error:
            return Answered(question, None, error=describe_failure(error))
        return Answered(question, reply.text, reply.finish_reason, dict(reply.usage), reply.latency_s)

    async def aclose(self) -> None:
        await self.client.aclose()


async def check_client(client: ChatClient, options: str) -> None:
    """Ask for one token, so that a wrong address, model name or key is told before hours of work.

    Raises:
        EvaluationError: the endpoint refuses, or is not there.
    """
    try:
        await client.complete(user_message("Hello"), Sampling(max_tokens=1), 60)
    except EndpointError as error:
        if error.kind not in ("malformed", "oversized"):  # one token of a model that thinks may be no text at all
            raise EvaluationError(
                f"Model {client.model!r} can not be asked: {error.problem}", f"Check {options}."
            ) from error


def describe_failure(error: EndpointError) -> dict[str, str]:
    """Return kind and detail; a prompt over the model's limit and a refused key are told apart from other refusals."""
    detail = error.problem
    kind = str(error.kind)
    if error.status in (401, 403):
        kind = "unauthorised"
    elif error.status in (400, 413, 422) and any(words in detail.lower() for words in OVERFLOW_WORDS):
        kind = "context_overflow"
    return {"kind": kind, "detail": detail[:300]}


def chat_messages(question: Question) -> list[Message]:
    """Return the user's one turn in the protocol's form, images at their slots."""
    images = iter(question.item.images)
    parts = [part if part["type"] == "text" else _image_part(next(images)) for part in content_parts(question.prompt)]
    if not question.item.images:
        return [{"role": "user", "content": "".join(part["text"] for part in parts)}]
    return [{"role": "user", "content": parts}]


def _image_part(image: bytes) -> dict[str, Any]:
    kind = next((kind for start, kind in IMAGE_KINDS if image.startswith(start)), "jpeg")
    url = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
