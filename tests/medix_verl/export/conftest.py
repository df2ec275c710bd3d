"""Checkpoints of tiny models, sharded by torch's own FSDP and saved as veRL saves them: one forked process a rank."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medix.prompts import load_prompt
from medix_verl.export import child

TEXT = dict(
    vocab_size=203,  # a prime: no number of ranks cuts it evenly
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    bos_token_id=0,
    eos_token_id=1,
    rope_parameters={"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4},
)
VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=32, patch_size=14)
DEEP = VISION | dict(deepstack_visual_indexes=[0, 1], num_position_embeddings=16)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, decoder_sparse_step=1)
FAMILIES = {
    "qwen2_5_vl": ("Qwen2_5_VL", TEXT, VISION | dict(fullatt_block_indexes=[1])),
    "qwen3_vl": ("Qwen3VL", TEXT, DEEP),
    "qwen3_vl_moe": ("Qwen3VLMoe", TEXT | EXPERTS, DEEP),
}


@dataclass(frozen=True)
class Recipe:
    """What to build. `strategy` is fsdp1, fsdp2 or plain; `fsdp_size` below `world` makes an HSDP mesh.

    `base`: a model's folder to begin with, in place of random weights of a family.
    """

    family: str = "qwen2_5_vl"
    tied: bool = False
    world: int = 2
    fsdp_size: int = 0
    strategy: str = "fsdp2"
    lora: bool = False
    dtype: str = "float32"
    seed: int = 0
    base: Path | None = None


def live_model(recipe: Recipe) -> Any:
    """Return the model before it is sharded: every weight its own random numbers, the same for one seed."""
    import torch
    import transformers

    if recipe.base:
        return transformers.AutoModelForImageTextToText.from_pretrained(recipe.base, dtype=torch.float32)
    name, text, vision = FAMILIES[recipe.family]
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision)
    config.tie_word_embeddings, config.dtype = recipe.tied, recipe.dtype
    torch.manual_seed(recipe.seed)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    if recipe.lora:
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", bias="none")
        model = get_peft_model(model, settings)
    model = model.to(getattr(torch, recipe.dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.02)
    return model


def _save_rank(recipe: Recipe, rank: int, actor: Path) -> None:
    import torch
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, StateDictType, fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.set_num_threads(1)
    world, size, model = recipe.world, recipe.fsdp_size or recipe.world, live_model(recipe)
    bare = model.get_base_model() if recipe.lora else model
    name = type(bare).__name__
    # FSDP2 cuts its parameters without asking other ranks, so a group that answers nothing will do.
    fsdp1 = recipe.strategy == "fsdp1"
    store = distributed.FileStore(str(actor.parent / "store"), world) if fsdp1 else FakeStore()
    distributed.init_process_group("gloo" if fsdp1 else "fake", rank=rank, world_size=world, store=store)
    shape, names = ((world,), ("fsdp",)) if size == world else ((world // size, size), ("ddp", "fsdp"))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    if fsdp1:
        strategy = ShardingStrategy.FULL_SHARD if size == world else ShardingStrategy.HYBRID_SHARD
        cpu = torch.device("cpu")
        model = FullyShardedDataParallel(
            model, sharding_strategy=strategy, device_mesh=mesh, device_id=cpu, use_orig_params=True
        )
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.SHARDED_STATE_DICT):
            state = model.state_dict()
    else:
        if recipe.strategy == "fsdp2":
            for layer in [*bare.model.language_model.layers, *bare.model.visual.blocks, model]:
                fully_shard(layer, mesh=mesh)
        state = model.state_dict()
    torch.save(state, f"{actor}/model_world_size_{world}_rank_{rank}.pt")
    if rank == 0:
        bare.config.architectures = [name]
        bare.config.save_pretrained(actor / "huggingface")
        (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}))
        if recipe.lora:
            (actor / "lora_train_meta.json").write_text('{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM"}')


def save_sharded(recipe: Recipe, actor: Path) -> Path:
    """Fork one process a rank; each saves its shard into `actor`."""
    # Imported once, before the forks: it takes longer than all else.
    import peft  # noqa: F401
    import torch.distributed.fsdp
    import torch.testing._internal.distributed.fake_pg  # noqa: F401

    live_model(recipe)
    (actor / "huggingface").mkdir(parents=True)
    children = []
    for rank in range(recipe.world):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                _save_rank(recipe, rank, actor)
                os._exit(0)
            os._exit(1)
        children.append(pid)
    try:
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * recipe.world
    except BaseException:  # A time-out must not leave ranks behind.
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
    return actor


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """`checkpoints/global_step_5/actor` of a recipe, made once a session; not to be changed."""
    made: dict[Recipe, Path] = {}

    def make(recipe: Recipe) -> Path:
        if recipe not in made:
            made[recipe] = save_sharded(
                recipe, tmp_path_factory.mktemp("run") / "checkpoints" / "global_step_5" / "actor"
            )
        return made[recipe]

    return make


@pytest.fixture
def copy_of(sharded: Callable[[Recipe], Path], tmp_path: Path) -> Callable[[Recipe], Path]:
    """A copy of a recipe's `actor` folder, to be damaged."""

    def make(recipe: Recipe) -> Path:
        return Path(shutil.copytree(sharded(recipe), tmp_path / "run" / "checkpoints" / "global_step_5" / "actor"))

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder: the demo's tiny model, untrained."""
    from examples.tiny_vlm.model import build_model, save
    from examples.tiny_vlm.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    tokenizer = train_tokenizer(["heart x-ray yes no"] * 10, load_prompt())
    save(folder, build_model(tokenizer, 0), tokenizer)
    return folder


@pytest.fixture
def whole(tiny: Path, copy_of: Callable[[Recipe], Path]) -> Path:
    """The `actor` folder of a tiny model on two ranks, with all side files."""
    actor = copy_of(Recipe(base=tiny))
    for path in tiny.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, actor / "huggingface")
    return actor


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the child's job in this process, so that a table of refusals need not import torch for each row."""

    def run_child(job: Callable[..., None], *arguments: Any, gpus: bool = False) -> Iterator[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        job(lambda **message: told.append(message), *arguments)
        yield from told

    monkeypatch.setattr(child, "run_child", run_child)
