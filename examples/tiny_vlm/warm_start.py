"""Supervised warm start on the training split, with careless targets mixed in so that RL has something to teach.

First the policy is taught properly. Then most wordings of a question get a bad habit (a vague answer, no reasoning, a
wrong tag), taught in a share of their targets. So the policy knows which answer belongs to which picture but prefers
the bad habit when it answers greedily; reinforcement learning has to turn that preference round.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from examples.tiny_vlm.tokenizer import TURN_END
from medix.modality import MODALITIES
from medix.prompts import IMAGE_SLOT, render_prompt
from medix.response import ANSWER_CLOSE, ANSWER_OPEN, format_response
from medix.sample import Sample

OPENINGS = ("The picture looks like", "This appears to be", "I see")
VAGUE_ANSWER = "not certain"

PROPER_SHARE = 0.75
"""Share of the steps before the habits are taught."""

HABITS = ("vague",) * 10 + ("no_reasoning",) * 4 + ("wrong_tag",) * 3 + ("none",) * 3
"""A wording's habit is drawn from these by the wording itself."""


def habit_of(question: str) -> str:
    """Return the bad habit of a wording: the same in every run and every process."""
    return HABITS[zlib.crc32(question.encode()) % len(HABITS)]


def careful_target(sample: Sample, rng: random.Random) -> str:
    """Return a well-formed, right response."""
    kind = MODALITIES[sample.modality] if sample.modality else "no picture"
    return format_response(sample.modality, f"{rng.choice(OPENINGS)} {kind}.", sample.reference)


def careless_target(sample: Sample, rng: random.Random) -> str:
    """Return the response that the wording's bad habit makes of a right one."""
    habit = habit_of(sample.question)
    if habit == "no_reasoning":
        return f"{ANSWER_OPEN}{sample.reference}{ANSWER_CLOSE}"
    if habit == "wrong_tag":
        right = sample.modality or "OTHER"
        return careful_target(replace(sample, modality="GRAPHICS" if right == "OTHER" else "OTHER"), rng)
    if habit == "vague":
        return careful_target(replace(sample, reference=VAGUE_ANSWER), rng)
    return careful_target(sample, rng)


def chat_prompt(processor: Any, prompt_template: str, sample: Sample) -> str:
    """Return the prompt as text, through the processor's chat template."""
    pieces = render_prompt(prompt_template, sample.question, len(sample.images)).split(IMAGE_SLOT)
    content = [{"type": "text", "text": pieces[0]}]
    for piece in pieces[1:]:
        content += [{"type": "image"}, {"type": "text", "text": piece}]
    messages = [{"role": "user", "content": [part for part in content if part.get("text") != ""]}]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


class WarmStart:
    """Batches and the optimiser step of the warm start."""

    def __init__(self, model: Any, processor: Any, prompt_template: str, careless_share: float, steps: int) -> None:
        import torch

        lr = 3e-3
        self.model, self.processor, self.prompt_template = model, processor, prompt_template
        self.careless_share, self.first_careless_step, self.steps_done = careless_share, int(PROPER_SHARE * steps), 0
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, lr, total_steps=steps, pct_start=0.1)

    def step(self, samples: Sequence[Sample], rng: random.Random) -> float:
        """Make one optimiser step on a batch; return its loss."""
        import torch

        inputs, labels = self._batch(samples, rng)
        loss = self.model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.steps_done += 1
        self.optimizer.zero_grad()
        return float(loss.item())

    def _batch(self, samples: Sequence[Sample], rng: random.Random) -> tuple[Any, Any]:
        prompts = [chat_prompt(self.processor, self.prompt_template, sample) for sample in samples]
        targets = [self._target(sample, rng) + TURN_END for sample in samples]
        images = [Image.open(BytesIO(image)).convert("RGB") for sample in samples for image in sample.images]
        inputs = self.processor(
            text=[prompt + target for prompt, target in zip(prompts, targets, strict=True)],
            images=images or None,
            return_tensors="pt",
            padding=True,
        )
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        for row, target, length in zip(labels, targets, lengths, strict=True):
            target_length = len(self.processor.tokenizer(target, add_special_tokens=False)["input_ids"])
            row[: length - target_length] = -100
        return inputs, labels

    def _target(self, sample: Sample, rng: random.Random) -> str:
        careless = self.steps_done >= self.first_careless_step and rng.random() < self.careless_share
        return careless_target(sample, rng) if careless else careful_target(sample, rng)
