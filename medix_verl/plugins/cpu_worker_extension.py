"""Extend veRL's vLLM worker: linear layers keep their weights, so that a weight sync can replace them."""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def _keep_plain_linear(layer: torch.nn.Module, remove_weight: bool) -> None:
    """Keep a linear layer as it was loaded: vLLM's own version packs the weight and drops the original."""
    layer.cpu_linear = torch.nn.functional.linear


class CPUWorkerExtension(vLLMColocateWorkerExtension):  # type: ignore[misc]
    """Load linear layers plainly. Named in `rollout.engine_kwargs.vllm.worker_extension_cls` on the CPU profile."""

    def __new__(cls, **kwargs: Any) -> CPUWorkerExtension:
        import vllm.model_executor.layers.utils as layer_utils

        layer_utils.dispatch_cpu_unquantized_gemm = _keep_plain_linear
        return super().__new__(cls, **kwargs)  # type: ignore[no-any-return]
