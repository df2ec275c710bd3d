"""A client for OpenAI-compatible chat completions, for judges and for generation alike.

    options = EndpointOptions(urls=("http://127.0.0.1:8000",), max_in_flight=64, timeout_s=120)
    client = ChatClient(options, model="my-model", where="evaluation.model")
    reply = await client.complete(user_message("What is seen?", images=[png_bytes]), Sampling(max_tokens=512))
    print(reply.text, reply.usage)
    await client.aclose()

Make one client a job and share it: it holds one HTTP session, picks the least-loaded endpoint, bounds the calls in
flight and retries only what a retry can mend (see `medix.scorer.endpoints`). It knows nothing of rewards. Errors are
`EndpointError` (a ScorerError) with a `kind`; the evaluation turns them into its own policy.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reward_fns.scorers.endpoints import Deadline, EndpointError, EndpointOptions, EndpointPool

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Sampling:
    """How to decode. None leaves a setting to the server. `extra` goes into the request body as it is."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    top_logprobs: int = 0
    """Alternatives to ask for at each position; 0 asks for no log-probabilities."""
    choice: tuple[str, ...] = ()
    """Constrain the reply to one of these (vLLM's structured outputs)."""
    json_schema: Mapping[str, Any] | None = None
    """Constrain the reply to this JSON schema (`response_format`)."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The fields of the request body that these settings stand for."""
        body: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        optional = {"top_p": self.top_p, "seed": self.seed}
        body |= {name: value for name, value in optional.items() if value is not None}
        if self.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.choice:
            body["structured_outputs"] = {"choice": list(self.choice)}
        if self.json_schema is not None:
            schema = {"name": "reply", "strict": True, "schema": dict(self.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body | dict(self.extra)


@dataclass(frozen=True)
class ChatReply:
    """`logprobs` is the server's list of token entries, empty where none were offered."""

    text: str
    finish_reason: str
    logprobs: tuple[Mapping[str, Any], ...]
    usage: Mapping[str, int]
    latency_s: float
    attempts: int
    url: str


class ChatClient:
    """One model behind one or more endpoints. Use from one event loop."""

    def __init__(self, options: EndpointOptions, model: str, where: str = "medix.scorer.judge") -> None:
        self.pool = EndpointPool(options, where)
        self.model = model

    async def complete(
        self, messages: Sequence[Message], sampling: Sampling | None = None, deadline: Deadline | float | None = None
    ) -> ChatReply:
        """The first choice of one completion.

        Raises:
            EndpointError: no usable reply within the tries and the deadline.
        """
        payload = {"model": self.model, "messages": list(messages), **(sampling or Sampling()).body()}
        reply = await self.pool.post("/v1/chat/completions", payload, deadline)
        try:
            choice = reply.data["choices"][0]
            text = choice["message"]["content"]
            finish = str(choice.get("finish_reason") or "")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._malformed(reply.url, f"{type(error).__name__} on {error}") from error
        if not isinstance(text, str):
            raise self._malformed(reply.url, f"content of type {type(text).__name__}")
        # What is beside the text is optional: in a form that is not the protocol's it was not offered.
        usage = _mapping(reply.data.get("usage"))
        counts = {name: count for name, count in usage.items() if isinstance(count, int)}
        entries = _mapping(choice.get("logprobs")).get("content")
        logprobs = tuple(entry for entry in entries if isinstance(entry, Mapping)) if isinstance(entries, list) else ()
        return ChatReply(text, finish, logprobs, counts, reply.latency_s, reply.attempts, reply.url)

    @staticmethod
    def _malformed(url: str, found: str) -> EndpointError:
        return EndpointError(
            f"a chat completion from {url}", found, "check that the endpoint speaks this protocol", "malformed"
        )

    async def aclose(self) -> None:
        await self.pool.aclose()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def user_message(text: str, images: Sequence[bytes] = ()) -> list[Message]:
    """One user message: images first, then the text. Images are encoded PNG or JPEG bytes."""
    if not images:
        return [{"role": "user", "content": text}]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def _data_url(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
