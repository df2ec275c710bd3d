"""Memory and time of `medix export` on a generated checkpoint, beside veRL's own merger and an older `medix`.

    python benchmarks/export.py                                  # 2 GB in float32, FSDP2 over two ranks
    python benchmarks/export.py --only ours --ranks 1 --like outputs/demo/tiny-vlm
    python benchmarks/export.py --old /path/to/an/older/checkout

Prints one JSON object. `ratio` is the largest process's peak resident memory over the bytes of the weights in float32.
Figures of one run may be compared with each other, not with those of another machine or day.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import typer


def save_rank(actor: Path, rank: int, ranks: int, layers: int, like: Path) -> None:
    """Save one rank's shard of a Qwen2.5-VL with random weights, 35 million a layer, cut by torch's FSDP2."""
    import torch
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    # FSDP2 cuts its parameters without asking other ranks, so a group that answers nothing will do.
    distributed.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    config: Any = AutoConfig.from_pretrained(like)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.layer_types = 1536, 6144, layers, None
    text.num_attention_heads, text.num_key_value_heads = 12, 2
    text.rope_parameters = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    vision.out_hidden_size, config.tie_word_embeddings, config.dtype = 1536, False, "float32"
    config = type(config)(**config.to_dict())
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.02)
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    for layer in (*model.model.language_model.layers, *model.model.visual.blocks, model):
        fully_shard(layer, mesh=mesh)
    torch.save(model.state_dict(), f"{actor}/model_world_size_{ranks}_rank_{rank}.pt")
    if rank == 0:
        config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
        config.save_pretrained(actor / "huggingface")


def measure(command: list[str], cwd: str, weights: int) -> dict[str, Any]:
    """Run a command to its end; return its seconds, and its peak of resident memory over the bytes of the weights."""
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": cwd, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log)
        # Of the command and of all children that it waited for, the largest.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {child.returncode}: {log.read().decode()[-2000:]}")
    ratio = round(usage.ru_maxrss * 1024 / weights, 2)
    return {"seconds": round(time.monotonic() - started, 1), "weights_bytes": weights, "ratio": ratio}


def main(
    layers: int = 15,
    ranks: int = 2,
    only: Literal["ours", "old", "verl"] | None = None,
    like: Path = Path("outputs/demo/tiny-vlm"),
    old: Path | None = None,
) -> None:
    """Measure; a layer has 35 million parameters, `like` lends its tokenizer, `old` is a checkout with its .venv."""
    here = str(Path(__file__).resolve().parents[1])
    like = like.resolve()
    with tempfile.TemporaryDirectory() as name:
        actor = Path(name) / "global_step_1" / "actor"
        shutil.copytree(like, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        for rank in range(ranks):
            one = multiprocessing.Process(target=save_rank, args=(actor, rank, ranks, layers, like))
            one.start()
            one.join()
        (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
        options = ["export", str(actor), "--base", str(like), "--dtype", "fp32", "--out"]
        merge = ["-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(actor), "--target_dir"]
        runs = {"medix export": ("ours", here, [str(Path(sys.executable).with_name("medix")), *options])}
        runs["verl merger, bfloat16"] = ("verl", here, [sys.executable, *merge])
        if old:
            runs["older medix export"] = ("old", str(old), [f"{old}/.venv/bin/medix", *options])
        found: dict[str, Any] = {}
        weights = sum(path.stat().st_size for path in actor.glob("model_*.pt"))
        for label, (kind, cwd, command) in runs.items():
            if only in (None, kind):
                found[label] = measure([*command, str(Path(name) / kind)], cwd, weights)
                shutil.rmtree(Path(name) / kind)
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
