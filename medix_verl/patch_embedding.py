"""Qwen-VL's patch embedding as a matrix product, in place of a convolution whose kernel is its whole input."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def embed_by_product(module: ModuleType) -> None:
    """Change the `...PatchEmbed` class of a module of transformers in this process. Harmless when called again.

    On one CPU core, forward and backward of 8,192 patches take a sixth of the convolution's time. By reports PyTorch
    and cuDNN have no fast kernel for it in bf16 on some GPUs (github.com/pytorch/pytorch/issues/174051,
    github.com/huggingface/transformers/issues/45750); that was not measured here. vLLM 0.24 computes it in this way
    too. Weights and checkpoints stay as they are.

    Args:
        module: such as `transformers.models.qwen2_5_vl.modeling_qwen2_5_vl`.
    """
    import torch

    kind = next(value for name, value in vars(module).items() if name.endswith("PatchEmbed"))
    convolve = kind.forward
    if hasattr(convolve, "medix"):
        return

    def forward(self: Any, hidden_states: Any) -> Any:
        proj = self.proj
        if type(proj) is not torch.nn.Conv3d or tuple(proj.kernel_size) != tuple(proj.stride):
            return convolve(self, hidden_states)  # such as an adapter around it
        weight = proj.weight.flatten(1)
        return torch.nn.functional.linear(
            hidden_states.reshape(-1, weight.shape[1]).to(weight.dtype), weight, proj.bias
        )

    forward.medix = True  # type: ignore[attr-defined]
    kind.forward = forward
