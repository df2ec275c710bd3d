"""veRL's single-turn agent loop, with the prompt's work done once a prompt instead of twice a response.

veRL 0.9.1 decodes a prompt's images and runs the image processor for every one of its `rollout.n` responses, and again
when a response has ended. Here the responses of a prompt share all three. What is shared lives as long as one of
these responses does. Chosen by `actor_rollout_ref.rollout.agent.default_agent_loop: medix_agent`; `MedixDataset`'s
module, which every agent worker loads, imports this one, and the import registers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from weakref import WeakValueDictionary

from verl.experimental.agent_loop.agent_loop import register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class SharedPrompt:
    """One prompt's media, token ids and image features; each is computed once."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages  # held, so that their ids stay theirs
        self.image_ids: list[int] = []
        self.features: dict[str, Any] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def once(self, name: str, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`, or of the same work begun before."""
        if name in self._tasks:
            work.close()
        else:
            self._tasks[name] = asyncio.ensure_future(work)
        return await asyncio.shield(self._tasks[name])


_prompts: WeakValueDictionary[tuple[int, ...], SharedPrompt] = WeakValueDictionary()
_by_image: WeakValueDictionary[int, SharedPrompt] = WeakValueDictionary()


def shared_prompt(messages: list[Any]) -> SharedPrompt:
    """The object that all responses to these very messages share."""
    key = tuple(id(message) for message in messages)
    prompt = _prompts.get(key)
    if prompt is None:
        prompt = _prompts[key] = SharedPrompt(messages)
    return prompt


def share_features(image_processor: Any) -> None:
    """Let `image_processor` give the features of a shared prompt's images again instead of computing them again."""
    original = image_processor.preprocess
    if getattr(original, "shares_features", False):
        return

    def preprocess(images: Any, *args: Any, **kwargs: Any) -> Any:
        prompt = _by_image.get(id(images[0])) if isinstance(images, list) and images else None
        if prompt is None or prompt.image_ids != [id(image) for image in images]:
            return original(images, *args, **kwargs)
        key = repr((args, sorted(kwargs.items())))
        if key not in prompt.features:
            prompt.features[key] = original(images, *args, **kwargs)
        found = prompt.features[key]
        return type(found)(data=dict(found))

    preprocess.shares_features = True  # type: ignore[attr-defined]
    image_processor.preprocess = preprocess


@register("medix_agent")
class MedixAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """One question, one answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        image_processor = getattr(self.processor, "image_processor", None)
        if image_processor is not None:
            share_features(image_processor)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> Any:
        self._prompt = shared_prompt(list(kwargs["raw_prompt"]))
        return await super().run(sampling_params, priority=priority, **kwargs)

    async def process_multi_modal_info(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        media: dict[str, Any] = await self._prompt.once("media", super().process_multi_modal_info(messages))
        images = media.get("images") or []
        if images and not self._prompt.image_ids:
            self._prompt.image_ids = [id(image) for image in images]
            _by_image[id(images[0])] = self._prompt
        return dict(media)

    async def ct_build_initial_tokens(self, messages: list[dict[str, Any]], **kwargs: Any) -> list[int]:
        kwargs.pop("mm_inputs_out", None)  # filled for SGLang's videos only
        tokens: list[int] = await self._prompt.once("tokens", super().ct_build_initial_tokens(messages, **kwargs))
        return list(tokens)
