"""Estimate the memory that a run needs on one GPU and in a node's main memory: arithmetic, without configuration.

Method, for FSDP over G processes, all in bytes (P parameters, T trainable ones, L one decoder layer, t tokens, h hidden
width, V vocabulary, m bytes of the trained copy: 4 in fp32, 2 in bf16).

    weights        m (P + T with LoRA) / G              gradients  m T / G          Adam  2 m T / G
    activations    with gradient checkpointing: 2 t h a layer and 2 x vision width a patch are kept, and one layer at a
                   time is redone: 2 t (12 h + 4 x feed-forward); without it every layer is kept whole
    update         the larger of two moments. At the loss: 2 copies of t V in bf16 (logits, gradient); gathered is what
                   FSDP2 shards with the root, and the last group's all-gather buffer, in bf16 (the output embedding;
                   where it is tied, and so in the root, the last layer). In a layer's backward: the logits are gone,
                   the layer is redone; the root, the layer and the next, and its gradients in bf16 and fp32
    log-probs      3 copies of t V (logits, softmax, product) over that pass's own tokens; two layers, the embeddings
    KV cache       what `gpu_memory_utilization` leaves of the card after 2 P / TP and vLLM's own buffers

veRL runs three phases on the same card, and the largest counts: `rollout` (vLLM awake; weights and optimizer only where
they are not offloaded), `log-probs` (vLLM asleep; weights, gathered, activations of one layer, logits), and `update`
(vLLM asleep; everything that is trained: veRL loads the moments before the first micro-batch, and the second meets the
gradients of the first). To each come 2 GB for CUDA contexts, NCCL and CUDA graphs. A tenth of the card is left as a
margin for fragmentation and what is not in this list. `medix preflight --rehearse` holds the trained part against
PyTorch's own accounting of the real model class; nothing was measured on a GPU.

Main memory has two moments, and the larger counts:

    start   every rank loads the model whole in the trained type where input and output embeddings are tied, else only
            rank 0 does (veRL's `get_init_weight_context_manager`)
    step    offloaded weights and optimizer. veRL copies them with `non_blocking=True`, into pinned memory, and
            PyTorch's pinned allocator rounds every tensor up to a power of two. Besides, TransferQueue keeps each
            response's pixels until the step ends: 3 bytes a pixel, as `plugins/pixel_levels.py` stores them (veRL's
            own 24: 3 channels, twice in time, in fp32)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from medix_verl.preflight.model import ModelShape

GB = 1e9
CONTEXT_GB = 2.0
BYTES_A_PIXEL = 3
PATCHES_A_TOKEN = 4
"""Both families merge 2 x 2 patches into one token."""


@dataclass(frozen=True)
class TrainingPlan:
    """What the memory depends on. Tokens are those of one micro-batch on one GPU."""

    shape: ModelShape
    gpus: int
    update_tokens: int
    log_prob_tokens: int
    image_share: float
    """Share of those tokens that may stand for images: prompt / (prompt + response)."""
    trained_bytes: int = 4
    lora_rank: int = 0
    checkpointing: bool = True
    param_offload: bool = False
    optimizer_offload: bool = False
    reference_offload: bool | None = None
    """Whether the reference model of a KL term waits in main memory; None: there is none (adapters bring their own)."""
    reference_bytes: int = 2

    @property
    def trainable(self) -> int:
        return self.shape.lora_parameters(self.lora_rank) if self.lora_rank else self.shape.parameters

    @property
    def held(self) -> int:
        """Parameters with a copy in the trained type: adapters come on top of what they adapt."""
        return self.shape.parameters + (self.trainable if self.lora_rank else 0)


@dataclass(frozen=True)
class RolloutPlan:
    """One vLLM engine. `tensor_parallel` GPUs share it."""

    shape: ModelShape
    utilization: float
    tensor_parallel: int
    max_model_len: int
    sleeps: bool = True

    def weights_gb(self) -> float:
        return 2 * self.shape.parameters / self.tensor_parallel / GB

    def sequence_gb(self) -> float:
        """Return the KV cache of one sequence of `max_model_len`, in bf16. vLLM repeats heads if GPUs are more."""
        shared = min(self.tensor_parallel, self.shape.kv_heads)
        return 2 * self.shape.layers * self.shape.kv_width * self.max_model_len / shared / GB

    def cache_gb(self, card_gb: float) -> float:
        """Return what is left for the KV cache; vLLM's own buffers are taken as 1 GB."""
        return self.utilization * card_gb - self.weights_gb() - 1.0


def training_phases(plan: TrainingPlan) -> dict[str, dict[str, float]]:
    """Return phase -> part -> GB on one GPU, for the phases in which vLLM sleeps."""
    shape = plan.shape
    weights = plan.trained_bytes * plan.held / plan.gpus / GB
    optimizer = 2 * plan.trained_bytes * plan.trainable / plan.gpus / GB
    resident = _reference(plan) | ({} if plan.optimizer_offload else {"optimizer": optimizer})
    moment = max(_at_the_loss(plan), _in_a_layer(plan), key=lambda parts: sum(parts.values()))
    gradients = plan.trained_bytes * plan.trainable / plan.gpus / GB
    log_probs = {
        "weights": weights,
        "gathered layers": 2 * (2 * shape.layer_parameters + shape.root_parameters + _embeddings(shape)) / GB,
        "activations": _layer_gb(shape, plan.log_prob_tokens),
        "logits": 3 * 2 * plan.log_prob_tokens * shape.vocabulary / GB,
    }
    return {
        "update": {
            "weights": weights, "gradients": gradients, "optimizer": optimizer,
            **moment, **_reference(plan), "context": CONTEXT_GB,
        },
        "log-probs": {**log_probs, **resident, "context": CONTEXT_GB},
    }  # fmt: skip


def rollout_phase(plan: TrainingPlan, rollout: RolloutPlan, card_gb: float) -> dict[str, float]:
    """Return part -> GB on one GPU while vLLM generates."""
    parts = {"vLLM": rollout.utilization * card_gb, "context": CONTEXT_GB, **_reference(plan)}
    if not plan.param_offload:
        parts["weights"] = plan.trained_bytes * plan.held / plan.gpus / GB
    if not plan.optimizer_offload:
        parts["optimizer"] = 2 * plan.trained_bytes * plan.trainable / plan.gpus / GB
    return parts


def host_start_gb(plan: TrainingPlan, gpus_of_node: int) -> float:
    """Return what loading the model takes of one node's main memory, before it is sharded."""
    whole = plan.trained_bytes * plan.shape.parameters / GB
    return whole * (gpus_of_node if plan.shape.tied else 1)


def host_step_gb(plan: TrainingPlan, gpus_of_node: int) -> float:
    """Return what the offloaded parts of one node's processes take of its main memory, pinned."""
    node = gpus_of_node / plan.gpus
    frozen = _pinned(plan, plan.trained_bytes)
    # Adapters are small beside what they adapt: not rounded.
    trained = plan.trained_bytes * plan.trainable if plan.lora_rank else frozen
    weights = frozen + (trained if plan.lora_rank else 0)
    offloaded = weights * plan.param_offload + 2 * trained * plan.optimizer_offload
    reference = _pinned(plan, plan.reference_bytes) if plan.reference_offload else 0
    return node * (offloaded + reference) / GB


def pixels_gb(responses: int, pixels_of_a_prompt: float) -> float:
    """Return what TransferQueue holds of pixel values in one step."""
    return responses * pixels_of_a_prompt * BYTES_A_PIXEL / GB


def _pinned(plan: TrainingPlan, size: int) -> int:
    """Return the bytes of all ranks' shards, `size` an element, each rounded up to a power of two.

    FSDP2 cuts a tensor by rows: every rank has `ceil(rows / gpus)` of them, until there are no more.
    """
    total = 0
    for count, rows, width in plan.shape.tensors:
        share = math.ceil(rows / plan.gpus)
        for held in (share,) * (rows // share) + (rows % share,):
            total += count * (1 << (size * held * width - 1).bit_length() if held else 0)
    return total


def checkpoint_gb(plan: TrainingPlan) -> float:
    """Return the size on disk: the trained copy of the weights, and two moments of what is trained."""
    return plan.trained_bytes * (plan.held + 2 * plan.trainable) / GB


def _reference(plan: TrainingPlan) -> dict[str, float]:
    """Return what a reference model holds of the GPUs. An offloaded one takes the trained weights' place."""
    if plan.reference_offload is not False:
        return {}
    return {"reference": plan.reference_bytes * plan.shape.parameters / plan.gpus / GB}


def _embeddings(shape: ModelShape) -> int:
    return shape.vocabulary * shape.hidden * (1 if shape.tied else 2)


def _at_the_loss(plan: TrainingPlan) -> dict[str, float]:
    shape = plan.shape
    last = shape.vocabulary * shape.hidden + (shape.layer_parameters if shape.tied else 0)
    return {
        "gathered layers": 2 * (shape.root_parameters + last) / GB,
        "activations": _kept_gb(plan),
        "logits": 2 * 2 * plan.update_tokens * shape.vocabulary / GB,
    }


def _in_a_layer(plan: TrainingPlan) -> dict[str, float]:
    shape = plan.shape
    root = shape.root_parameters + (_embeddings(shape) if shape.tied else 0)
    gathered = 2 * (root + 2 * shape.layer_parameters)
    if not plan.lora_rank:
        # Gradients: the root's wait for the end in bf16, the layer's are reduced in fp32.
        gathered += 2 * root + (2 + 4) * shape.layer_parameters
    redone = _layer_gb(shape, plan.update_tokens) if plan.checkpointing else 0.0
    return {"gathered layers": gathered / GB, "activations": _kept_gb(plan) + redone}


def _layer_gb(shape: ModelShape, tokens: int) -> float:
    return 2 * tokens * (12 * shape.hidden + 4 * shape.feed_forward) / GB


def _kept_gb(plan: TrainingPlan) -> float:
    shape, tokens = plan.shape, plan.update_tokens
    patches = PATCHES_A_TOKEN * plan.image_share * tokens
    if not plan.checkpointing:
        # A vision block keeps about as many elements as 20 times its width.
        return shape.layers * _layer_gb(shape, tokens) + 2 * 20 * patches * shape.vision_width / GB
    return 2 * (tokens * shape.hidden * shape.layers + patches * shape.vision_width) / GB
