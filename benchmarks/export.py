"""Memory of an export, measured: ours, from shards to safetensors, beside veRL's own merger on the same checkpoint.

    python benchmarks/export.py                       # 2 GB in float32, FSDP2 over two ranks, in a temporary folder
    python benchmarks/export.py --layers 6 --only ours
    python benchmarks/export.py --layers 14 --only command --like outputs/demo/tiny-vlm   # `medix export`, proofs too

Every export runs as a child of its own under wait4, so the peak is that child's alone. `ratio` is its peak resident
memory over the bytes of the weights it wrote; `libraries` is a child that only imports what ours imports. Prints one
JSON object. Figures of one run may be compared with each other, not with those of another machine or day.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEXT: dict[str, Any] = dict(
    vocab_size=32003,  # no multiple of the ranks: the last shard is smaller
    hidden_size=1536,
    intermediate_size=6144,
    num_attention_heads=12,
    num_key_value_heads=2,
    bos_token_id=0,
    eos_token_id=1,
    rope_parameters={"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
)
VISION: dict[str, Any] = dict(
    depth=2, hidden_size=320, intermediate_size=640, num_heads=4, out_hidden_size=1536, fullatt_block_indexes=[1]
)
OURS = """
import sys
from pathlib import Path
from medix_verl.export.contract import ExportOptions
from medix_verl.export.pipeline import export
export(ExportOptions(Path(sys.argv[1]), Path(sys.argv[2]), dtype=sys.argv[3]), checks=[])
"""
LIBRARIES = "import torch; from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration"


def model_config(layers: int, like: Path | None) -> Any:
    """A large text model on a small vision tower; with the vocabulary and the token ids of the model folder `like`."""
    from transformers import AutoConfig, Qwen2_5_VLConfig

    if like is None:
        return Qwen2_5_VLConfig(text_config=TEXT | {"num_hidden_layers": layers}, vision_config=VISION)
    known = AutoConfig.from_pretrained(like).to_dict()
    own = {key: value for key, value in TEXT.items() if not key.endswith("token_id") and key != "vocab_size"}
    text = known.pop("text_config") | own | {"num_hidden_layers": layers, "layer_types": None}
    vision = known.pop("vision_config") | VISION
    return Qwen2_5_VLConfig(**known, text_config=text, vision_config=vision)


def save_rank(actor: Path, rank: int, ranks: int, layers: int, like: Path | None) -> None:
    """One rank's shard of a Qwen2.5-VL with random float32 weights, cut by torch's FSDP2."""
    import torch
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import Qwen2_5_VLForConditionalGeneration

    # FSDP2 cuts its parameters without asking other ranks, so a group that answers nothing will do.
    distributed.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    config = model_config(layers, like)
    config.tie_word_embeddings, config.dtype = False, "float32"
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.02)
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    for layer in (*model.model.language_model.layers, *model.model.visual.blocks):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    torch.save(model.state_dict(), f"{actor}/model_world_size_{ranks}_rank_{rank}.pt")
    if rank == 0:
        config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
        config.save_pretrained(actor / "huggingface")


def write_checkpoint(actor: Path, ranks: int, layers: int, like: Path | None) -> None:
    """The shards, one process each, and the small files beside them."""
    from tokenizers import Tokenizer, models

    (actor / "huggingface").mkdir(parents=True)
    for rank in range(ranks):
        command = [sys.executable, __file__, "--save-rank", str(rank), "--ranks", str(ranks), "--actor", str(actor)]
        subprocess.run([*command, "--layers", str(layers), *(["--like", str(like)] if like else [])], check=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    if like:
        for path in like.iterdir():
            if path.name != "config.json" and path.suffix != ".safetensors":
                shutil.copy(path, actor / "huggingface")
        return
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(actor / "huggingface/tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "b", "pad_token": "a"}
    (actor / "huggingface/tokenizer_config.json").write_text(json.dumps(settings))


def measure(command: list[str], out: Path | None) -> dict[str, Any]:
    """Run a child to its end: seconds, peak resident bytes, bytes of the weights it wrote, and their ratio."""
    started = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    peak = usage.ru_maxrss * 1024
    result: dict[str, Any] = {"seconds": round(time.monotonic() - started, 1), "peak_rss_bytes": peak}
    if out is not None:
        written = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
        result |= {"weights_bytes": written, "ratio": round(peak / written, 3)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12, help="of 35 million parameters each, over a base of 100")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--only", choices=("ours", "verl", "command"))
    parser.add_argument("--like", type=Path, help="a Qwen2.5-VL folder whose tokenizer and processor to take")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--save-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--actor", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only == "command" and arguments.like is None:
        parser.error("--only command needs --like, a model folder with tokenizer and processor")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.save_rank is not None:
        save_rank(arguments.actor, arguments.save_rank, arguments.ranks, arguments.layers, arguments.like)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        work = Path(name)
        actor = work / "global_step_1/actor"
        write_checkpoint(actor, arguments.ranks, arguments.layers, arguments.like)
        shards = sum(path.stat().st_size for path in actor.glob("model_*.pt"))
        result: dict[str, Any] = {"world_size": arguments.ranks, "shards_bytes": shards, "runs": {}}
        python = sys.executable
        runs: dict[str, tuple[list[str], Path | None]] = {}
        if arguments.only in (None, "ours"):
            runs["libraries"] = ([python, "-c", LIBRARIES], None)
            for dtype in ("float32", "bfloat16"):
                out = work / f"ours-{dtype}"
                runs[f"ours {dtype}"] = ([python, "-c", OURS, str(actor), str(out), dtype], out)
        if arguments.like is not None and arguments.only in (None, "command"):
            out = work / "command"
            medix = str(Path(python).with_name("medix"))
            command = [medix, "export", str(actor), "--out", str(out), "--base", str(arguments.like), "--dtype", "fp32"]
            runs["medix export float32, with its proofs"] = (command, out)
        if arguments.only in (None, "verl"):
            out = work / "verl"
            merge = [python, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
            runs["verl merger, bfloat16"] = ([*merge, "--local_dir", str(actor), "--target_dir", str(out)], out)
        for label, (command, target) in runs.items():
            result["runs"][label] = measure(command, target)
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
