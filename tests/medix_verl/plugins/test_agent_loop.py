"""The responses of one prompt share its images, tokens and features, and what is shared goes with the last of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # imports torch, veRL and Ray


class FakeImageProcessor:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def preprocess(self, images: list[Any], *args: Any, **kwargs: Any) -> Any:
        from transformers import BatchFeature

        self.calls += 1
        return BatchFeature(data={"pixel_values": [len(images), kwargs.get("size")]})


class FakeImage:
    pass


def counted(result: Any) -> tuple[Callable[[], Any], list[int]]:
    calls = [0]

    async def work() -> Any:
        calls[0] += 1
        await asyncio.sleep(0)
        return result

    return work, calls


async def test_eight_responses_of_a_prompt_do_its_work_once() -> None:
    from medix_verl.plugins.agent_loop import shared_prompt

    messages = [{"role": "user", "content": "q"}]
    work, calls = counted([1, 2])
    prompts = [shared_prompt(list(messages)) for _ in range(8)]  # veRL makes a list anew for every response
    found = await asyncio.gather(*(prompt.once("tokens", work()) for prompt in prompts))
    assert found == [[1, 2]] * 8
    assert calls == [1]


async def test_equal_questions_that_are_not_the_same_row_share_nothing() -> None:
    from medix_verl.plugins.agent_loop import shared_prompt

    one, two = shared_prompt([{"content": "q"}]), shared_prompt([{"content": "q"}])
    assert one is not two


async def test_a_fault_reaches_every_response() -> None:
    from medix_verl.plugins.agent_loop import shared_prompt

    async def broken() -> None:
        raise ValueError("cannot decode")

    prompt = shared_prompt([{"content": "q"}])
    outcomes = await asyncio.gather(*(prompt.once("media", broken()) for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["cannot decode"] * 3


def test_features_are_computed_once_for_the_same_images_and_settings() -> None:
    from medix_verl.plugins import agent_loop

    processor, images = FakeImageProcessor(), [FakeImage(), FakeImage()]
    agent_loop.share_features(processor)
    agent_loop.share_features(processor)  # once more, by the next response
    prompt = agent_loop.shared_prompt([{"content": "q"}])
    prompt.image_ids = [id(image) for image in images]
    agent_loop._by_image[id(images[0])] = prompt
    first, again = processor.preprocess(images, size=1), processor.preprocess(images, size=1)
    assert processor.calls == 1
    assert dict(first) == dict(again) == {"pixel_values": [2, 1]}
    again["pixel_values"] = "changed by its owner"
    assert processor.preprocess(images, size=1)["pixel_values"] == [2, 1]
    cases = {"other settings": (images, 2), "fewer images": (images[:1], 1), "images of nobody": ([FakeImage()], 1)}
    for number, (asked, size) in enumerate(cases.values(), 2):
        processor.preprocess(asked, size=size)
        assert processor.calls == number


def test_what_is_shared_goes_with_the_last_response() -> None:
    from medix_verl.plugins import agent_loop

    gc.collect()  # what earlier tests left
    prompt = agent_loop.shared_prompt([{"content": "unique to this test"}])
    kept = len(agent_loop._prompts)
    del prompt
    gc.collect()
    assert len(agent_loop._prompts) == kept - 1
