"""Rehearse one update at full size, without its memory: the real model class under fake tensors, sharded as veRL does.

PyTorch's FakeTensorMode computes shapes and no numbers, a fake process group answers for the other ranks, and
FSDPMemTracker accounts for every tensor by kind. So forward and backward of two micro-batches of a recipe's whole token
budget, with images, run on a CPU in minutes, and the peak is held against `memory_estimate`. What stays estimated:

    attention       one sequence as long as the budget, which takes the memory of several packed ones
    logits          two copies, as flash-attn's fused loss keeps them; its kernel is not run
    optimizer       its two moments, which veRL loads before the first micro-batch: twice the weights. Of its step the
                    tracker counts temporaries that fused kernels do not have (7B: 144 GB)
    allocator, CUDA context, NCCL, log-probabilities and the rollout
"""

from __future__ import annotations

import json
import subprocess
import types
from typing import Any

from medix.errors import ConfigError
from medix.processes import child_environment, python_command
from medix_verl.preflight.memory import read_plan
from medix_verl.preflight.memory_estimate import GB, PATCHES_A_TOKEN, TrainingPlan, training_phases
from medix_verl.preflight.model import KNOWN_MODELS, config_file

KINDS = {
    "weights": ("SHARDED_PARAM",),
    "gradients": ("SHARDED_GRAD",),
    "gathered layers": ("UNSHARDED_PARAM", "UNSHARDED_GRAD", "ALL_GATHER", "REDUCE_SCATTER"),
    "activations": ("ACT", "TEMP", "INP", "BUFFER"),
}
"""Part of the estimate -> the tracker's kinds. Logits are activations or temporaries to it."""


def rehearse(config: Any) -> dict[str, dict[str, float]]:
    """Return part -> {"rehearsed": GB, "estimated": GB} at the peak of one update on one GPU.

    Raises:
        ConfigError: the model's configuration is not known here, or PyTorch can not follow its class.
    """
    plan, _ = read_plan(config)
    path = str(config.actor_rollout_ref.model.path)
    file = config_file(path)
    known = json.loads(KNOWN_MODELS.read_text(encoding="utf-8"))
    if plan is None or (file is None and path not in known):
        raise ConfigError(f"There is no config.json of {path} here.", "Download the model first, or name a folder.")
    settings = json.loads(file.read_text(encoding="utf-8")) if file else known[path]["config"]
    request = {
        "config": settings,
        "gpus": plan.gpus,
        "tokens": plan.update_tokens,
        "patches": int(PATCHES_A_TOKEN * plan.image_share * plan.update_tokens),
        "bytes": plan.trained_bytes,
        "checkpointing": plan.checkpointing,
    }
    command = python_command("medix_verl.preflight.rehearsal", json.dumps(request))
    run = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"The rehearsal of {path} ended: {reason}", "Go by the estimate of `medix preflight`.")
    return compare(plan, json.loads(run.stdout.splitlines()[-1]))


def compare(plan: TrainingPlan, peak: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return the tracker's peak, by the parts of the estimate, beside the estimate of the update."""
    update = training_phases(plan)["update"]
    estimated = {part: update[part] for part in KINDS}
    estimated["activations"] += update.get("logits", 0.0)
    tracked = {part: sum(peak.get(kind, 0.0) for kind in kinds) / GB for part, kinds in KINDS.items()}
    rows = {part: {"rehearsed": tracked[part], "estimated": estimated[part]} for part in KINDS}
    totals = {name: sum(row[name] for row in rows.values()) for name in ("rehearsed", "estimated")}
    return {**rows, "sum": totals}


def run_update(request: dict[str, Any]) -> dict[str, float]:
    """Return the bytes of one rank at the peak of forward and backward, by the tracker's kinds."""
    import torch
    import torch.distributed as dist
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.for_model(**request["config"])
    config.get_text_config().rope_parameters.setdefault("mrope_section", [16, 24, 24])
    dist.init_process_group("fake", rank=0, world_size=request["gpus"], store=FakeStore())
    mesh = init_device_mesh("cpu", (request["gpus"],))
    dtype = torch.float32 if request["bytes"] == 4 else torch.bfloat16
    vision, tokens, patches = config.vision_config, request["tokens"], request["patches"]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
        _simplify(model)
        if request["checkpointing"]:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        _shard(model, mesh, config.tie_word_embeddings)
        width = vision.hidden_size // vision.num_heads
        inputs = (
            torch.zeros(1, tokens, dtype=torch.long),
            torch.empty(patches, 3 * 2 * vision.patch_size**2, dtype=torch.bfloat16),
            (torch.empty(patches, width), torch.empty(patches, width)),
            torch.zeros(3, 1, tokens, dtype=torch.long),
        )
        tracker = FSDPMemTracker(model)
        tracker.track_inputs(inputs)
        with tracker:
            for _ in range(2):  # an update's second micro-batch meets the gradients of its first
                model(*inputs).backward()
                tracker.reset_mod_stats()  # those of single modules; the peak is kept
        (peak,) = tracker.get_tracker_snapshot("peak").values()
        return {str(getattr(kind, "name", kind)): float(size) for kind, size in peak.items()}


def _simplify(model: Any) -> None:
    """Give the model a forward pass whose shapes do not depend on values: fake tensors have none."""
    import sys

    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(module: Any, query: Any, key: Any, value: Any, *_: Any, is_causal: Any = None, **options: Any) -> Any:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        grouped = query.shape[1] != key.shape[1]
        call = torch.nn.functional.scaled_dot_product_attention
        out = call(query, key, value, is_causal=bool(causal), scale=options.get("scaling"), enable_gqa=grouped)
        return out.transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("rehearsal", attention)
    for config in (model.config, model.config.vision_config, model.config.get_text_config()):
        config._attn_implementation = "rehearsal"
    module = sys.modules[type(model).__module__]
    # The vision tower hands all images to one call, and no mask is built.
    module.is_flash_attention_requested = lambda *_, **__: True  # type: ignore[attr-defined]
    module.create_causal_mask = lambda **_: None  # type: ignore[attr-defined]

    class Loss(torch.autograd.Function):  # type: ignore[misc]
        """Keeps the logits, and gives a gradient of their size."""

        @staticmethod
        def forward(ctx: Any, logits: Any) -> Any:
            ctx.save_for_backward(logits)
            return logits.new_zeros(())

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            return torch.empty_like(ctx.saved_tensors[0])

    def forward(self: Any, ids: Any, pixels: Any, rotary: Any, positions: Any) -> Any:
        visual, text = self.model.visual, self.model.language_model
        hidden, deep = visual.patch_embed(pixels).reshape(pixels.shape[0], -1), []
        if hasattr(visual, "pos_embed"):
            hidden = hidden + visual.pos_embed(pixels.new_zeros(pixels.shape[0], dtype=torch.long))
        lengths = torch.tensor([0, pixels.shape[0]], dtype=torch.int32)
        chosen = getattr(visual, "deepstack_visual_indexes", ())
        for number, block in enumerate(visual.blocks):
            hidden = block(hidden, cu_seqlens=lengths, position_embeddings=rotary)
            if number in chosen:
                deep.append(visual.deepstack_merger_list[chosen.index(number)](hidden))
        image = visual.merger(hidden)
        words = text.embed_tokens(ids)[:, image.shape[0] :]
        embedded = torch.cat([image[None].to(words.dtype), words], dim=1)
        mask = {"full_attention": None} if not chosen else None
        out = text(inputs_embeds=embedded, position_ids=positions, attention_mask=mask, use_cache=False)
        return Loss.apply(self.lm_head(out.last_hidden_state)) + sum(part.sum() * 0 for part in deep)

    model.forward = types.MethodType(forward, model)


def _shard(model: Any, mesh: Any, tied: bool) -> None:
    """Shard as veRL's `apply_fsdp2`: every block, the embeddings where they are two, then what is left."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for name, module in list(model.named_modules()):
        outside = isinstance(module, torch.nn.Embedding) or name.rsplit(".", 1)[-1] == "lm_head"
        if type(module).__name__ in model._no_split_modules or (outside and not tied):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


if __name__ == "__main__":
    import sys

    print(json.dumps(run_update(json.loads(sys.argv[1]))))
