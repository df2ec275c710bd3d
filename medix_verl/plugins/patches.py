"""Change functions of veRL 0.9.1, Ray and transformers in the running process, when each module is first imported.

- `qwen2_vl._get_input_embeds`: a micro-batch without any image raises AttributeError with transformers 5. It can go
  with the first veRL that unpacks the vision output there, as it does in the branch for images.
- `AgentLoopWorker`: a picture is processed twice a response and stored at 24 bytes a pixel; errors name no sample.
- `model.extract_multi_modal_inputs`: reads the pixels that are stored smaller.
- The patch embedding of Qwen-VL in transformers: a convolution where a matrix product is many times faster.
- Ray's `JobConfig`: under a safe import path, workers would still import from the working directory.

`tests/medix_verl/plugins/test_patches.py` fails when the installed veRL needs the first no more, or is another
release than these were written against.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from medix_verl.patch_embedding import embed_by_product

VERL = "0.9.1"
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
PROMPTS_KEPT = 32
"""Whose pictures an agent worker keeps, at 3 bytes a pixel: its responses come in one after the other."""
Patch = Callable[[ModuleType], None]


class _AfterImport(importlib.abc.MetaPathFinder):
    """Call a function on a module as soon as it is imported. To import it here would cost every process seconds."""

    def __init__(self, patches: dict[str, Patch]) -> None:
        self.patches = patches

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        patch = self.patches.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if patch else None
        if spec is None or spec.loader is None or patch is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_patch(module: ModuleType) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Apply each patch now if its module is imported already, else when it is. Harmless when called again."""
    for finder in [finder for finder in sys.meta_path if isinstance(finder, _AfterImport)]:
        sys.meta_path.remove(finder)
    sys.meta_path.insert(0, _AfterImport(PATCHES))
    for name, patch in PATCHES.items():
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            patch(module)


def needs_text_only_repair(module: ModuleType) -> bool:
    """Return whether `_get_input_embeds` takes the vision tower's output for a tensor, as before transformers 5."""
    function = module._get_input_embeds
    return not hasattr(function, "medix") and "image_embeds = model.visual(" in inspect.getsource(function)


def repair_text_only(module: ModuleType) -> None:
    """Let a micro-batch without any image pass through a Qwen2-VL or Qwen2.5-VL.

    An empty picture goes through the vision tower and is weighted with 0, as veRL means it: with FSDP every rank must
    run the tower, or the ranks that have pictures wait for the others for ever.
    """
    if not needs_text_only_repair(module):
        return
    original = module._get_input_embeds

    def _get_input_embeds(
        model: Any,
        input_ids: Any,
        attention_mask: Any = None,
        pixel_values: Any = None,
        pixel_values_videos: Any = None,
        *grids: Any,
        **named_grids: Any,
    ) -> tuple[Any, Any]:
        if pixel_values is not None or pixel_values_videos is not None:
            given = (model, input_ids, attention_mask, pixel_values, pixel_values_videos)
            return original(*given, *grids, **named_grids)  # type: ignore[no-any-return]
        import torch
        from verl.utils.transformers_compat import unpack_visual_output

        embeds, vision = model.get_input_embeddings()(input_ids), model.config.vision_config
        patch_size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        empty = torch.zeros((16, patch_size), dtype=embeds.dtype, device=embeds.device)
        grid = torch.tensor([[1, 4, 4]], device=embeds.device)
        features, _ = unpack_visual_output(model.visual(empty, grid_thw=grid))
        mask = None if attention_mask is None else attention_mask.to(embeds.device)
        return embeds + 0.0 * features.mean(), mask

    _get_input_embeds.medix = True  # type: ignore[attr-defined]
    module._get_input_embeds = _get_input_embeds  # type: ignore[attr-defined]


def extend_agent_loop(module: ModuleType) -> None:
    """Process a prompt's pictures once, store them as 8-bit levels without the prompt, name the sample of an error.

    veRL runs the image processor twice for each response. For the Qwen families all that it gives depends on the
    pictures alone, so the responses of a prompt share it.
    """
    worker = module.AgentLoopWorker
    if hasattr(worker, "medix"):
        return
    worker.medix = True
    compute, score, run = worker._compute_multi_modal_inputs, worker._compute_score, worker._run_agent_loop
    recent: dict[Any, dict[str, Any]] = {}

    def _compute_multi_modal_inputs(self: Any, output: Any, input_ids: Any) -> dict[str, Any]:
        from medix_verl.plugins.pixel_levels import pack

        processor, media = getattr(self.processor, "image_processor", None), output.multi_modal_data or {}
        pictures = media.get("images") or []
        if set(media) - {"images"} or not pictures or not hasattr(processor, "temporal_patch_size"):
            return pack(compute(self, output, input_ids), processor)
        key = tuple((picture.size, hashlib.sha256(picture.tobytes()).digest()) for picture in pictures)
        if key not in recent:
            while len(recent) >= PROMPTS_KEPT:
                del recent[next(iter(recent))]
            recent[key] = pack(compute(self, output, input_ids), processor)
        return dict(recent[key])  # veRL takes out of it what only the positions need

    async def _compute_score(self: Any, outputs: list[Any], kwargs: dict[str, Any]) -> None:
        await score(self, outputs, kwargs)
        if outputs[-1].reward_score is not None:
            # The prompt's pictures, encoded and decoded; without a reward model at the end nothing reads them again.
            kwargs.pop("raw_prompt", None)

    async def _run_agent_loop(self: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> Any:
        try:
            return await run(self, sampling_params, trajectory, **kwargs)
        except Exception as error:
            import transfer_queue

            sample = dict(kwargs.get("extra_info") or {}).get("sample_id", "unknown")
            # Ray's errors carry a traceback; their last line says what was raised.
            said = " ".join((str(error).strip().splitlines() or [""])[-1].split())[:300]
            tag = {"error": f"sample {sample!r}: {type(error).__name__}: {said}"}
            partition = "val" if trajectory.get("validate") else "train"
            await transfer_queue.async_kv_put(key=kwargs["uid"], partition_id=partition, tag=tag)
            raise

    worker._compute_multi_modal_inputs, worker._compute_score = _compute_multi_modal_inputs, _compute_score
    worker._run_agent_loop = _run_agent_loop


def read_levels(module: ModuleType) -> None:
    """Turn stored levels into pixel values again where a micro-batch is made."""
    extract = module.extract_multi_modal_inputs
    if hasattr(extract, "medix"):
        return

    def extract_multi_modal_inputs(batch_data: Any, indices: list[int] | None = None) -> dict[str, Any]:
        from medix_verl.plugins.pixel_levels import unpack

        chosen = batch_data if indices is None else [batch_data[i] for i in indices if i < len(batch_data)]
        return extract([unpack(getattr(inputs, "data", inputs)) for inputs in chosen])  # type: ignore[no-any-return]

    extract_multi_modal_inputs.medix = True  # type: ignore[attr-defined]
    module.extract_multi_modal_inputs = extract_multi_modal_inputs  # type: ignore[attr-defined]


def keep_working_directory_out(module: ModuleType) -> None:
    """Have Ray's workers import nothing from where `medix train` was typed: Ray adds that folder to their path.

    Ray leaves it out for a job with a working directory of its own, so every job is taken for one.
    """
    if sys.flags.safe_path:
        module.JobConfig._runtime_env_has_working_dir = lambda _self: True


PATCHES: dict[str, Patch] = {
    "ray.job_config": keep_working_directory_out,
    "verl.models.transformers.qwen2_vl": repair_text_only,
    "verl.experimental.agent_loop.agent_loop": extend_agent_loop,
    "verl.utils.model": read_levels,
    **{f"transformers.models.{name}.modeling_{name}": embed_by_product for name in FAMILIES},
}
