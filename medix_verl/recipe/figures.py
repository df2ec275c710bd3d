"""A run in figures before it starts: steps, tokens, hours, GB. An estimate from the assumptions stated here.

Time of a step = rollout + training passes + the rest, with a = active parameters, t = tokens of a step:

    rollout      response tokens / (GPUs x DECODE / a)
    training     8 a t for an update with gradient checkpointing, 2 a t for the old log-probabilities and as much for a
                 reference model, over GPUs x peak x UTILISATION
    rest         OVERHEAD_S for weight sync and offload, and every `save_freq` steps a checkpoint at DISK_GB_S
    validation   every `test_freq` steps a rollout of the held-out rows

Nothing of it was measured on a GPU. A 7B on six H100 comes to 4 to 5 minutes a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix.files import lookup, mapping_inside
from medix_verl.preflight.disk import checkpoint_bytes
from medix_verl.preflight.memory import read_plan

PEAK_TFLOPS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40": 362, "A10": 125, "4090": 165, "3090": 71}
"""Dense bf16 by card, as its maker states it; an H100's is taken for a card that is not listed."""
UTILISATION = 0.3
DECODE = 25e12
"""Tokens a second x active parameters of one GPU: 3,000 tokens a second of a 7B."""
RESPONSE_TOKENS, PROMPT_TOKENS = 600, 500
OVERHEAD_S, DISK_GB_S = 20.0, 1.5
RELEASED_ROWS, RELEASED_HELD_OUT = 51_335, 2_451
RESPONSE_BYTES = 3_500
"""Of one row of rollouts/scored.jsonl: 1.1 kB of record, and the response."""


@dataclass(frozen=True)
class Figures:
    """Of a whole run. `step_s` is the time of an average step, with its share of checkpoints and validation."""

    steps: int
    tokens: float
    step_s: float
    written_gb: float
    checkpoints_gb: float
    card: str

    @property
    def hours(self) -> float:
        return self.steps * self.step_s / 3600

    def describe(self) -> str:
        return (
            f"{self.steps} steps, {self.tokens / 1e9:.2g} billion tokens, about {self.hours:.2g} hours "
            f"({self.step_s / 60:.1f} minutes a step), {self.written_gb:.3g} GB written "
            f"({self.checkpoints_gb:.3g} of checkpoints); an estimate: {UTILISATION:.0%} of the card's peak, "
            f"{RESPONSE_TOKENS} tokens a response, {DISK_GB_S} GB/s to disk, on {self.card}"
        )


def run_figures(config: Any, card: str = "H100") -> Figures | None:
    """Return the figures of a configuration on cards of this name; None where the model's size is not known."""
    plan, _ = read_plan(config)
    if plan is None:
        return None
    rows, prompt, held_out = _data(config)
    trainer, batch = config.trainer, config.data.train_batch_size
    steps = trainer.total_training_steps or max(1, rows // batch) * trainer.total_epochs
    response = min(RESPONSE_TOKENS, config.data.max_response_length)
    responses = batch * config.actor_rollout_ref.rollout.n
    tokens = responses * (prompt + response)
    active = plan.shape.parameters - plan.shape.idle_parameters
    gpus = trainer.n_gpus_per_node * trainer.nnodes
    peak = next((value for name, value in PEAK_TFLOPS.items() if name in card), PEAK_TFLOPS["H100"]) * 1e12
    passes = (8 if plan.checkpointing else 6) + 2 + (2 if plan.reference_offload is not None else 0)
    # Groups without a spread of rewards are generated and thrown away: half as many again, by assumption.
    surplus = 1.5 if config.algorithm.filter_groups.enable else 1.0
    decode = active / (gpus * DECODE)
    checkpoint, save = (checkpoint_bytes(config) or 0) / 1e9, trainer.save_freq
    step_s = (
        surplus * responses * response * decode
        + passes * active * tokens / (gpus * peak * UTILISATION)
        + OVERHEAD_S
        + (checkpoint / DISK_GB_S / save if save > 0 else 0)
        + (held_out * response * decode / trainer.test_freq if trainer.test_freq > 0 else 0)
    )
    saved = checkpoint * -(-steps // save) if save > 0 else 0.0
    written = saved + steps * responses * RESPONSE_BYTES / 1e9
    return Figures(int(steps), steps * tokens, step_s, written, saved, card)


def _data(config: Any) -> tuple[int, float, int]:
    """Return rows, tokens of a prompt and held-out rows: from the data's manifest, else the released set's."""
    manifest = mapping_inside(Path(str(config.data.train_files)).parent, "manifest.json")
    if not manifest:
        return RELEASED_ROWS, PROMPT_TOKENS, RELEASED_HELD_OUT
    train, val = (lookup(manifest, f"splits.{name}") or {} for name in ("train", "val"))
    counts = lookup(train, "n_tokens.histogram") or {}
    edges = [(int(key.split()[1]), number) for key, number in counts.items()]
    total = sum(number for _, number in edges)
    prompt = sum(edge * 0.75 * number for edge, number in edges) / total if total else PROMPT_TOKENS
    return int(train.get("rows", RELEASED_ROWS)), prompt, int(val.get("rows", 0))
