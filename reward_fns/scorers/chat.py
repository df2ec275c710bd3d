"""A client for OpenAI-compatible chat completions, for judges and for generation alike.

    options = EndpointOptions(urls=("http://127.0.0.1:8000",), max_in_flight=64, timeout_s=120)
    client = ChatClient(options, model="my-model", where="evaluation.model")
    reply = await client.complete(user_message("What is seen?", images=[png_bytes]), Sampling(max_tokens=512))
    print(reply.text, reply.usage)
    await client.aclose()

Make one client a job and share it. It finds out which request fields its server takes (`Server`), reads the envelope of
a reply, and repeats what a repetition can mend (`RetryPolicy`). It knows nothing of rewards.
"""

from __future__ import annotations

import base64
import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from reward_fns.scorers.endpoints import EndpointOptions, EndpointPool, EndpointReply
from reward_fns.scorers.retry import CONTENT_STATUSES, EndpointError

logger = logging.getLogger(__name__)
Message = Mapping[str, Any]
T = TypeVar("T")
OVERFLOW_WORDS: Final = (
    "context length", "maximum context", "max_model_len", "too long", "input length", "context window", "context size",
)  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """How to decode. None leaves a setting to the server. `extra` goes into the request body as it is."""

    max_tokens: int = 512
    temperature: float | None = 0.0
    top_p: float | None = None
    seed: int | None = None
    top_logprobs: int = 0
    """Alternatives to ask for at each position; 0 asks for no log-probabilities."""
    choice: tuple[str, ...] = ()
    """Constrain the reply to one of these (vLLM's structured outputs)."""
    json_schema: Mapping[str, Any] | None = None
    """Constrain the reply to this JSON schema (`response_format`). With `choice`: where the server takes no choice."""
    free_tokens: int = 0
    """`max_tokens` where the server holds the reply to neither, or its model thinks first. 0: as `max_tokens`."""
    extra: Mapping[str, Any] = field(default_factory=dict)


OPTIONAL: Final = ("structured_outputs", "response_format", "logprobs", "seed", "temperature", "top_p")
"""Fields that a server may not know, the least usual first: left out in this order where a refusal does not say why."""
_NO_CHOICE = {"structured_outputs"}
_NEW_TOKENS = {"max_tokens": "max_completion_tokens"}
PRESETS: Final[dict[str, tuple[set[str], dict[str, str], str]]] = {
    "auto": (set(), {}, ""),
    "vllm": (set(), {}, ""),
    "sglang": (_NO_CHOICE, {}, ""),
    "ollama": (_NO_CHOICE, {}, ""),
    "llama.cpp": (_NO_CHOICE, {}, ""),
    "openai": (_NO_CHOICE, _NEW_TOKENS, ""),
    "azure": (_NO_CHOICE, _NEW_TOKENS, "api-key"),
    "gemini": (_NO_CHOICE | {"logprobs", "seed"}, {}, ""),
    "mistral": (_NO_CHOICE | {"logprobs"}, {"seed": "random_seed"}, ""),
}
"""Kind of server, by its documents -> fields that it does not take, its names of others, header of the key."""


class Server:
    """Which request fields a server takes: preset by its kind, then learned from refusals and from unusable replies."""

    def __init__(self, kind: str) -> None:
        omitted, renamed, self.key_header = PRESETS[kind]
        self.omitted, self.renamed = set(omitted), dict(renamed)
        self.needs_room = False
        """Its replies need `free_tokens` although they are constrained: the model thinks first."""
        self.accepted: set[str] = set()
        """Our fields that were in a request that was answered: a later refusal is not theirs."""
        self.is_read = False
        """Whether a reply was usable."""
        self.changes = 0

    def fields(self, sampling: Sampling) -> dict[str, Any]:
        """Return the fields of a request body that stand for `sampling`, under our names."""
        s = sampling
        fields: dict[str, Any] = {"temperature": s.temperature, "top_p": s.top_p, "seed": s.seed}
        fields["logprobs"] = True if s.top_logprobs else None
        if s.choice and "structured_outputs" not in self.omitted:
            fields["structured_outputs"] = {"choice": list(s.choice)}
        elif s.json_schema is not None:
            schema = {"name": "reply", "strict": True, "schema": dict(s.json_schema)}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        fields = {name: value for name, value in fields.items() if value is not None and name not in self.omitted}
        is_free = bool(s.choice or s.json_schema) and not {"structured_outputs", "response_format"} & fields.keys()
        tokens = max(s.max_tokens, 24) if s.choice and "response_format" in fields else s.max_tokens
        return {"max_tokens": max(tokens, s.free_tokens) if self.needs_room or is_free else tokens, **fields}

    def body(self, fields: Mapping[str, Any], sampling: Sampling, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Return `fields` under the server's names, with what was set by hand over them."""
        body = {self.renamed.get(name, name): value for name, value in fields.items()}
        if "logprobs" in fields:
            body["top_logprobs"] = sampling.top_logprobs
        return {name: value for name, value in {**body, **extra, **sampling.extra}.items() if value is not None}

    def learn(self, said: str, sent: Mapping[str, Any]) -> str:
        """Return what is sent otherwise from now on, where a refusal names a field that was sent; else nothing."""
        if "max_completion_tokens" in said and "max_tokens" not in {*self.accepted, *self.renamed}:
            self.renamed |= _NEW_TOKENS
            return "max_completion_tokens in place of max_tokens"
        also = {"logprobs": "|top_logprobs", "response_format": "|json_schema", "seed": "|random_seed"}
        for name in OPTIONAL:
            if name in sent and name not in self.accepted and re.search(rf"\b({name}{also.get(name, '')})\b", said):
                return self.leave_out(name)
        return ""

    def learn_from_reply(self, sampling: Sampling, sent: Mapping[str, Any], ran_out: bool) -> str:
        """Return what is sent otherwise from now on after a reply that could not be read, before one that could."""
        if self.is_read or not sampling.free_tokens:
            return ""
        held_by = next((name for name in OPTIONAL[:2] if name in sent), "")
        if held_by and not ran_out:
            return self.leave_out(held_by) + ", which it ignores"
        if self.needs_room or sent["max_tokens"] >= sampling.free_tokens:
            return ""
        self.needs_room = True
        return f"room for {sampling.free_tokens} tokens, since the model thinks before it answers"

    def leave_out(self, *names: str) -> str:
        self.omitted |= set(names)
        return f"no {', '.join(names)}"


@dataclass(frozen=True)
class ChatReply:
    """`logprobs` is the server's list of token entries, empty where none were offered."""

    text: str
    finish_reason: str
    reasoning: str
    logprobs: tuple[Mapping[str, Any], ...]
    usage: Mapping[str, int]
    latency_s: float
    url: str
    attempts: int

    @property
    def ran_out(self) -> bool:
        """Whether the reply ended at its limit of tokens, and not by itself."""
        return self.finish_reason in ("length", "max_tokens", "MAX_TOKENS")


class ChatClient:
    """One model behind one or more endpoints. Use from one event loop."""

    def __init__(
        self, options: EndpointOptions, model: str, where: str = "medix.scorer.judge", hold_limit_s: float = 0.0
    ) -> None:
        self.server = Server(options.server)
        self.pool = EndpointPool(options, where, self.server.key_header)
        self.model, self.options = model, options
        self.retry = options.retry_policy(where.rpartition(".")[2], self.pool.shown, hold_limit_s)

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling | None = None,
        limit_s: float | None = None,
        read: Callable[[ChatReply], Any] | None = None,
    ) -> Any:
        """Return the first choice of one completion as a ChatReply, or what `read` makes of it.

        Args:
            limit_s: seconds for all tries together, without the wait in our own queue; None: the client's hold limit.
            read: raises an EndpointError of kind `unusable` for a reply that it can not read; the call is repeated.

        Raises:
            EndpointError: there is no usable reply.
        """
        asked, tries = sampling or Sampling(), itertools.count(1)
        return await self.retry.run(lambda left_s: self._ask(messages, asked, read, left_s, next(tries)), limit_s)

    async def _ask(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        read: Callable[[ChatReply], Any] | None,
        left_s: float,
        number: int,
    ) -> Any:
        left_out = 0
        while True:
            server, seen = self.server, self.server.changes
            fields = {name: value for name, value in server.fields(sampling).items() if name not in OPTIONAL[:left_out]}
            body = {"model": self.model, "messages": messages, **server.body(fields, sampling, self.options.extra)}
            try:
                reply = read_envelope(await self.pool.post("chat/completions", body, left_s), number)
            except EndpointError as error:
                is_too_long = any(words in error.found.lower() for words in OVERFLOW_WORDS)
                if error.kind != "refused" or (is_too_long and error.status in CONTENT_STATUSES):
                    raise
                if server.changes != seen or self._note(server.learn(error.found, fields)):
                    continue
                # No field was named and nothing was answered yet: fewer and fewer are sent, until all are gone.
                if error.status not in CONTENT_STATUSES or server.accepted or left_out == len(OPTIONAL):
                    raise
                left_out += 1
                continue
            if left_out and server.changes == seen:
                self._note(server.leave_out(*OPTIONAL[:left_out]))
            server.accepted |= fields.keys()
            try:
                result = read(reply) if read else reply
            except EndpointError:
                if server.changes != seen or self._note(server.learn_from_reply(sampling, fields, reply.ran_out)):
                    continue
                raise
            server.is_read = True
            return result

    def _note(self, learned: str) -> bool:
        if learned:
            self.server.changes += 1
            logger.warning("The server at %s is asked otherwise from now on: %s.", self.pool.shown, learned)
        return bool(learned)

    async def aclose(self) -> None:
        await self.pool.aclose()


def read_envelope(reply: EndpointReply, attempts: int = 1) -> ChatReply:
    """Return the first choice of a chat completion.

    Raises:
        EndpointError: the reply is none, or it was cut by a content filter or an error.
    """
    try:
        choices = reply.data["choices"]
        choice = min(choices, key=lambda choice: int(choice.get("index") or 0))
        message = choice["message"]
        content = message.get("content")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        problem = f"The reply of {reply.url} is no chat completion: {type(error).__name__} on {error}."
        raise EndpointError(problem, "Check that the endpoint speaks this protocol.", "malformed") from error
    finish = str(choice.get("finish_reason") or "")
    if finish == "content_filter" or message.get("refusal"):
        said = message.get("refusal") or "finish_reason content_filter"
        problem = f"{reply.url} refuses the content of what it was asked: {said}."
        raise EndpointError(problem, "See its filter.", "filtered", final=True)
    if finish == "error":
        raise EndpointError(f"The reply of {reply.url} ended with an error.", f"See the log of {reply.url}.", "server")
    if isinstance(content, list):  # parts: thinking beside text
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and "text" in str(part.get("type"))]
        content = "".join(text for text in texts if isinstance(text, str))
    if content is not None and not isinstance(content, str):
        problem = f"The reply of {reply.url} has a content of type {type(content).__name__}."
        raise EndpointError(problem, "Check that the endpoint speaks this protocol.", "malformed")
    # What is beside the text is optional: in a form that is not the protocol's it was not offered.
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    counts = {name: n for name, n in _mapping(reply.data.get("usage")).items() if isinstance(n, int)}
    entries = _mapping(choice.get("logprobs")).get("content")
    logprobs = tuple(entry for entry in entries if isinstance(entry, Mapping)) if isinstance(entries, list) else ()
    thought = reasoning if isinstance(reasoning, str) else ""
    return ChatReply(content or "", finish, thought, logprobs, counts, reply.latency_s, reply.url, attempts)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def user_message(text: str, images: Sequence[bytes] = ()) -> list[Message]:
    """Return one user message: images first, then the text. Images are encoded PNG or JPEG bytes."""
    if not images:
        return [{"role": "user", "content": text}]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def _data_url(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
