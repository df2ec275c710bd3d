"""Trains a model for two steps on W gloo ranks with veRL's own FSDP2 code, and saves it: as veRL does, and whole.

`python live_checkpoint.py MODEL ACTOR:RANKS:LORA_RANK ...`. Each `ACTOR` becomes a checkpoint's actor folder. Beside
it, `live.safetensors` is the state that the ranks gathered from the living model and, with LoRA, `merged.safetensors`
is what peft's own merge makes of that. `log_probs.json` has what the sharded model gives to a fixed answer, with the
LoRA adapter and without.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from medix.prompts import load_prompt
from medix.response import format_response
from medix_verl.export.generate import Asker

LR, STEPS, ALPHA = 1e-2, 2, 16
RESPONSE = format_response("X_RAY", "I see an X-ray.", "x-ray")


def main(model: Path, wanted: list[str]) -> None:
    os.environ |= {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "medix_verl.plugins",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    import torch.multiprocessing as multiprocessing
    import verl.utils.checkpoint.fsdp_checkpoint_manager  # noqa: F401 - imported once, before the processes part
    from transformers import AutoModelForImageTextToText  # noqa: F401

    for one in wanted:
        place, ranks, lora_rank = one.rsplit(":", 2)
        actor = Path(place)
        actor.mkdir(parents=True)
        arguments = (model, actor, int(ranks), int(lora_rank), f"file://{actor.parent}/store")
        multiprocessing.start_processes(train_rank, arguments, nprocs=int(ranks), start_method="fork")


def train_rank(rank: int, folder: Path, actor: Path, ranks: int, lora_rank: int, store: str) -> None:
    import torch
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from verl.utils.fsdp_utils import apply_fsdp2, get_fsdp_full_state_dict

    torch.set_num_threads(1)
    init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    model, processor = build(folder, lora_rank)
    mesh = init_device_mesh("cpu", mesh_shape=(ranks,), mesh_dim_names=("fsdp",))
    apply_fsdp2(model, {"mesh": mesh, "reshard_after_forward": True}, {})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR)
    for _ in range(STEPS):
        model(**batch(folder)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save(model, optimizer, processor, actor)
    live = get_fsdp_full_state_dict(model)
    model.eval()
    found = {"trained": log_probs(model, folder)}
    if lora_rank:
        model.disable_adapter_layers()
        found["without LoRA"] = log_probs(model, folder)
    if rank == 0:
        (actor.parent / "log_probs.json").write_text(json.dumps(found))
        save_whole(live, actor.parent / "live.safetensors")
        if lora_rank:
            save_merged(folder, lora_rank, live, actor.parent / "merged.safetensors")
    destroy_process_group()


def build(folder: Path, lora_rank: int) -> tuple[Any, Any]:
    """Model and processor; LoRA as veRL's engine puts it on (`target_modules: all-linear`)."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    if lora_rank:
        from peft import LoraConfig, TaskType, get_peft_model

        settings = LoraConfig(
            task_type=TaskType.CAUSAL_LM, r=lora_rank, lora_alpha=ALPHA, target_modules="all-linear", bias="none"
        )
        model = get_peft_model(model, settings)
    return model, AutoProcessor.from_pretrained(folder)


def batch(folder: Path) -> dict[str, Any]:
    """Return the image question with a fixed answer in the trained form, as training sees it."""
    inputs = dict(Asker(folder, load_prompt()).inputs("image", RESPONSE))
    return inputs | {"labels": inputs["input_ids"]}


def log_probs(model: Any, folder: Path) -> list[float]:
    """Return the log-probability of each token of the fixed answer, in float32."""
    import torch

    start = Asker(folder, load_prompt()).inputs("image")["input_ids"].shape[1]
    inputs = batch(folder)
    targets = inputs.pop("labels")[0, start:]
    with torch.no_grad():
        logits = model(**inputs).logits[0, start - 1 : -1].float()
    values: list[float] = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0].tolist()
    return values


def save(model: Any, optimizer: Any, processor: Any, actor: Path) -> None:
    """As veRL's trainer saves."""
    import torch
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    for _ in range(STEPS):
        scheduler.step()
    manager = FSDPCheckpointManager(model, optimizer, lr_scheduler=scheduler, processing_class=processor)
    manager.save_checkpoint(str(actor), global_step=STEPS)


def save_whole(state: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)


def save_merged(folder: Path, lora_rank: int, live: dict[str, Any], path: Path) -> None:
    model, _ = build(folder, lora_rank)
    model.load_state_dict(live)
    save_whole(model.merge_and_unload().state_dict(), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
